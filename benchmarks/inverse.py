"""What the approximate posteriors of docs/inverse.md miss: mean and covariance against the exact posterior.

Gaussian data are followed without drawing (the samples are affine in the start), mixtures by samples.

    python benchmarks/inverse.py
"""

from __future__ import annotations

import math

import torch

import unidiff as ud

F64 = torch.float64
VARIANTS = {
    "DPS": lambda *given: ud.inverse.DPS(*given, chunk=10_000),
    "PiGDM": lambda *given: ud.inverse.PiGDM(*given, chunk=10_000),
    "MomentMatching": lambda *given: ud.inverse.MomentMatching(*given, chunk=10_000),
    "exact": lambda model, operator, y, s: ud.inverse.conditioned(model, operator, y[0], s),
}


def law(model: ud.Denoiser, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the samples of a linear denoiser: one run from 0, one from each unit vector."""
    u = torch.cat([torch.zeros(1, size, dtype=F64), torch.eye(size, dtype=F64) * model.process.prior_scale()])
    times = ud.Tapered(200).times(model.process)
    with torch.no_grad():
        *_, last = ud.ExponentialAdams().trajectory(model, u, times, torch.randn_like)
    columns = last.u[1:] - last.u[:1]
    return last.u[0], columns.mT @ columns


def gaussian() -> None:
    print("N(0, 1), y = x + s n, y = 1: mean and variance of the samples")
    model, y = ud.GaussianMixture(ud.VPSDE(), [[0.0]], 1.0), torch.ones(1, 1, dtype=F64)
    for s in (2.0, 1.0, 0.5, 0.3):
        for name, make in VARIANTS.items():
            mean, variance = law(make(model, ud.inverse.Inpainting([1]), y, s), 1)
            print(f"  s = {s:3.1f}  {name:14}  mean {float(mean):.4f}  variance {float(variance):.5f}")
    print("correlated N(0, [[1, .8], [.8, 1]]), first coordinate known to s = 0.2, y = 1: mean and covariance")
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    model = ud.GaussianMixture(ud.VPSDE(), [[0.0, 0.0]], covariance)
    for name, make in VARIANTS.items():
        mean, spread = law(make(model, ud.inverse.Inpainting([1, 0]), y, 0.2), 2)
        numbers = [*mean.tolist(), spread[0, 0], spread[0, 1], spread[1, 1]]
        print(f"  {name:14}", "  ".join(f"{float(number):7.4f}" for number in numbers))


def mixture(n: int = 2000) -> None:
    print(f"two Gaussians at -(1, .5) and (1, .5), variance 0.09; y the first coordinate; {n} samples")
    model = ud.GaussianMixture(ud.VPSDE(), [[-1.0, -0.5], [1.0, 0.5]], 0.09)
    for value, s in ((1.0, 0.3), (0.3, 0.3), (0.3, 1.0)):
        y = torch.tensor([[value]], dtype=F64)
        for name, make in VARIANTS.items():
            given = make(model, ud.inverse.Inpainting([1, 0]), y, s)
            x = ud.sample(given, ud.Ancestral(), ud.Tapered(100), (2,), n, dtype=F64).x
            share, spread = float((x[:, 0] > 0).double().mean()), x.mT.cov()
            numbers = [*x.mean(0).tolist(), spread[0, 0], spread[1, 1], share]
            print(f"  y = {value}, s = {s}  {name:14}", "  ".join(f"{float(number):7.4f}" for number in numbers))
    print(f"standard errors: {1.1 / math.sqrt(n):.4f} of a mean at most, {0.5 / math.sqrt(n):.4f} of a share")


if __name__ == "__main__":
    gaussian()
    mixture()
