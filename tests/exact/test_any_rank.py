"""Signals, volumes and videos through the doors of images: a Gaussian-process signal against its law, and the rest."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud

F64 = torch.float64
PROCESS, LENGTH = ud.VPSDE(), 32


def kernel() -> torch.Tensor:
    """Squared-exponential covariance of 32 points of spacing 1, length scale 4 and variance 1, and white noise 0.01."""
    at = torch.arange(LENGTH, dtype=F64)
    return torch.exp(-((at[:, None] - at) ** 2) / (2 * 4.0**2)) + 0.01 * torch.eye(LENGTH, dtype=F64)


def signal() -> ud.GaussianMixture:
    return ud.GaussianMixture(PROCESS, torch.zeros(1, 1, LENGTH), kernel())


def test_samples_of_a_gaussian_process_have_its_covariance():
    count, covariance = 4000, kernel()
    x = ud.sample(signal(), seeds=count, grid=ud.Tapered(100), dtype=F64).x
    assert x.shape == (count, 1, LENGTH)
    flat = x.flatten(1)
    # Five standard errors of an entry, sqrt((C_ii C_jj + C_ij^2) / n); the third-order solver's own error at 100 steps,
    # below 1e-3, is a twentieth of that.
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / count).sqrt()
    assert ((flat.T @ flat / count - covariance).abs() < 5 * error + 1e-3).all()
    assert (flat.mean(0).abs() < 5 * (variance / count).sqrt()).all()


def test_the_likelihood_of_a_gaussian_process_is_exact():
    """The flow of a Gaussian is linear along each eigenvector; see the first lines of test_likelihood.py."""
    values, axes = torch.linalg.eigh(kernel())
    noise = torch.randn(3, LENGTH, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = (noise * values.sqrt()) @ axes.T
    start, end = PROCESS.levels_at([PROCESS.t_min, 1.0])
    growth = ((end.alpha**2 * values + end.sigma**2) / (start.alpha**2 * values + start.sigma**2)).sqrt()
    last = (start.alpha * x @ axes * growth) @ axes.T
    expected = PROCESS.prior_log_density(last) + growth.log().sum() + LENGTH * math.log(start.alpha)
    flow = ud.log_likelihood(signal(), x[:, None], ud.ExactTrace(), rtol=1e-6, atol=1e-6)
    # About 100 steps of 1e-6 in the state, over the smallest scale 0.1, for 32 values: 1e-6 * 100 * sqrt(32) * 10 / 2.
    torch.testing.assert_close(flow.log_prob, expected, rtol=0, atol=3e-3)
    # What is left to the density of the data themselves is the noise at t_min, and the prior at t = 1.
    density = torch.distributions.MultivariateNormal(torch.zeros(LENGTH, dtype=F64), kernel()).log_prob(x)
    torch.testing.assert_close(flow.log_prob, density, rtol=0, atol=0.5)


SHAPES = {"signal": (2, 8), "image": (2, 4, 4), "volume": (2, 2, 4, 4)}


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_door_takes_any_rank(shape):
    """The axes of a sample mean nothing to processes, solvers, likelihood, guidance and editing: each gives what it
    gives for the same numbers in a row.
    """
    size = math.prod(shape)
    generator = torch.Generator().manual_seed(0)
    means, x = (torch.rand(2, size, generator=generator, dtype=F64) - 0.5 for _ in range(2))
    known = torch.arange(size) % 3 == 0
    measured = x[:1, known]

    def results(sizes: tuple[int, ...]) -> list[torch.Tensor]:
        model = ud.GaussianMixture(PROCESS, means.reshape(2, *sizes), 0.04)
        label, grid = torch.tensor([0, 1]), ud.Uniform(6)
        options = {"seeds": 2, "dtype": F64, "label": label}
        operator = ud.inverse.Inpainting(known.reshape(sizes).tolist())
        posterior = ud.inverse.MomentMatching(model, operator, measured, 0.3)
        image, where = x[0].reshape(sizes), known.reshape(sizes)
        return [
            ud.sample(ud.ClassifierFree(model, 2.0), ud.Ancestral(), grid, **options).x,
            ud.sample(posterior, ud.DDIM(), grid, seeds=2, dtype=F64).x,
            ud.inpaint(model, image, where, ud.DDIM(), grid, 2, label=label).x,
            ud.edit(model, image, 0.5, ud.DDIM(), grid, 2, label=label).x,
            ud.log_likelihood(model, x.reshape(2, *sizes), ud.Hutchinson(), label=label).log_prob,
            ud.variational_bound(model, x.reshape(2, *sizes), grid, label=label).log_prob,
            *(row.x for row in ud.compare(model, ["ddim", "deis"], [4], seeds=20, most_steps=16).rows),
        ]

    for own, flat in zip(results(shape), results((size,))):
        # Sums over the axes may be taken in another order; the adaptive likelihood within its tolerance of 1e-5.
        torch.testing.assert_close(own.flatten(), flat.flatten(), rtol=1e-4, atol=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("shape", "blur"), [((2, 4, 4), "Blurring"), ((8,), "RenormalizedHeat")])
def test_processes_of_modes_take_networks_of_the_same_rank(shape, blur):
    process = getattr(ud, blur)(shape, 1.0)
    backbone = ud.UNet((1, *shape), width=8, multipliers=(1, 2), blocks=1)
    model = ud.NeuralDenoiser(process, ud.X0(), backbone)
    # A fresh network predicts 0, so that the last step, a denoise, ends there exactly.
    assert torch.equal(ud.sample(model, ud.DDIM(), ud.Uniform(3), seeds=2).x, torch.zeros(2, 1, *shape))
    averaged = ud.train(
        model, ud.TensorSource(torch.rand(20, 1, *shape) * 2 - 1, "noise"), ud.Denoising(),
        ud.Training(steps=3, batch=4, tensorboard=False, precision="fp32"),
    )  # fmt: skip
    assert ud.sample(averaged, ud.DDIM(), ud.Uniform(3), seeds=2).x.abs().max() > 0
