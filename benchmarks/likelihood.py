"""How exact is the likelihood by the probability flow? On Gaussian data in 16 dimensions every answer is known.

Prints, for several processes, the largest error of the exact trace against the closed form of the same flow, and the
mean error of Hutchinson's estimate with its standard error: python benchmarks/likelihood.py (about 3 minutes on one
core).
"""

from __future__ import annotations

import argparse
import math
import time

import torch

import unidiff as ud

SIZE = 16
F64 = torch.float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-5, 1e-8])
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=F64))
    variances = torch.logspace(-2, math.log10(2), SIZE, dtype=F64)
    covariance = axes @ variances.diag() @ axes.T
    mean = 0.3 * torch.randn(1, SIZE, generator=generator, dtype=F64)
    x = mean + torch.randn(arguments.samples, SIZE, generator=generator, dtype=F64) * variances.sqrt() @ axes.T

    def closed_form(process: ud.Process) -> torch.Tensor:
        """The flow scales the residual along each axis by s(1) / s(t_min), s^2 = alpha^2 variance + sigma^2."""
        start, end = process.levels_at([process.t_min, 1.0])
        small, large = ((at.alpha**2 * variances + at.sigma**2).sqrt() for at in (start, end))
        u1 = end.alpha * mean + (start.alpha * (x - mean) @ axes * large / small) @ axes.T
        return process.prior_log_density(u1) + (large / small).log().sum() + SIZE * math.log(start.alpha)

    def model(process: ud.Process) -> ud.Denoiser:
        return ud.GaussianMixture(process, mean, covariance)

    models = {
        "VPSDE": model(ud.VPSDE()),
        "SubVPSDE": model(ud.SubVPSDE()),
        "VESDE": model(ud.VESDE()),
        "EDM": model(ud.EDM()),
        "FlowMatching": model(ud.FlowMatching()),
        "NCSN, 20 levels to 20": model(ud.NCSN(0.01, 20.0, 20)),
        "DDPM on VPSDE": ud.Rescheduled(model(ud.DDPM()), ud.VPSDE()),
        "DDPM": model(ud.DDPM()),
    }
    print(f"{arguments.samples} samples in {SIZE} dimensions, torch {torch.__version__}, one thread; errors in nats")
    print(f"{'':22} {'tolerance':>9} {'evaluations':>11} {'seconds':>7} {'exact trace':>11}  {arguments.probes} probes")
    torch.set_num_threads(1)
    for name, denoiser in models.items():
        truth = closed_form(denoiser.process)
        for tolerance in arguments.tolerances:
            if name == "DDPM":  # its curve through a table is smooth only piecewise: 10 times the steps below this
                tolerance = max(tolerance, 1e-7)
            options = {"rtol": tolerance, "atol": tolerance}
            begun = time.perf_counter()
            exact = ud.log_likelihood(denoiser, x, ud.ExactTrace(), **options)
            seconds = time.perf_counter() - begun
            error = float((exact.log_prob - truth).abs().max())
            line = f"{name:22} {tolerance:9.0e} {exact.nfe:11d} {seconds:7.1f} {error:11.1e}"
            if tolerance == arguments.tolerances[0]:
                found = ud.log_likelihood(denoiser, x, ud.Hutchinson(arguments.probes), **options)
                off = found.log_prob - truth
                spread = float(found.standard_error.square().sum().sqrt()) / len(x)
                line += f"  {float(off.mean()):+.3f} +- {spread:.3f}, {float(found.standard_error.mean()):.2f} a sample"
            print(line, flush=True)


if __name__ == "__main__":
    main()
