"""The closed-form denoisers, against quadrature, automatic differentiation, linear algebra and naive loops.

Quadrature: the trapezoidal rule on an analytic integrand that vanishes at both ends converges faster than any power of
the spacing h; for a Gaussian of standard deviation s its relative error is 2 exp(-2 pi^2 s^2 / h^2), below u = 2^-53
once h < s / 1.4. The grids below keep h < s / 3 and reach 8 s and more beyond every mean (1e-14 of the peak).
"""

from __future__ import annotations

import math

import pytest
import torch

from unidiff import DDPM, NCSN, Cosine, Empirical, GaussianMixture, ZeroTerminalSNR
from unidiff.errors import ParameterError

F64 = torch.float64
PROCESSES = [DDPM(), DDPM(schedule=Cosine()), NCSN(0.05, 3.0, 8)]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=["ddpm", "cosine", "ncsn"])

MEANS = torch.tensor([[-0.7, 0.2], [0.6, 0.5], [0.1, -0.8]], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
COVARIANCES = torch.tensor(
    [[[0.09, 0.03], [0.03, 0.04]], [[0.05, -0.02], [-0.02, 0.16]], [[0.04, 0.0], [0.0, 0.04]]], dtype=F64
)


def points(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------- quadrature


@every_process
@pytest.mark.parametrize("t", [1.0, 0.6, 0.3])
def test_mixture_in_one_dimension_against_quadrature(process, t):
    means, variances = torch.tensor([-0.8, 0.3, 0.9], dtype=F64), torch.tensor([0.02, 0.05, 0.01], dtype=F64)
    level = process.level(t)
    x = torch.linspace(-4, 4, 4001, dtype=F64)
    prior = (WEIGHTS * torch.exp(-((x[:, None] - means) ** 2) / (2 * variances)) / variances.sqrt()).sum(1)
    u = points(9, 1) * math.hypot(level.alpha, level.sigma)
    # Bayes by brute force: the integrals of x p(x) N(u; alpha x, sigma^2) and of p(x) N(u; alpha x, sigma^2).
    joint = prior * torch.exp(-((u - level.alpha * x) ** 2) / (2 * level.sigma**2))
    x0 = (joint * x).sum(1, keepdim=True) / joint.sum(1, keepdim=True)
    prediction = GaussianMixture(process, means[:, None], variances, WEIGHTS)(u, level)
    close(prediction.x0, x0, 1e-11)  # 4001 terms of relative error u each, at worst 4001 u = 4e-13
    close(prediction.eps, (u - level.alpha * x0) / level.sigma, 1e-10)  # divided by sigma >= 0.1


@every_process
def test_mixture_in_two_dimensions_against_quadrature(process):
    level = process.level(0.55)
    axis = torch.linspace(-4.5, 4.5, 361, dtype=F64)  # h = 0.025 and the smallest standard deviation 0.15
    x = torch.cartesian_prod(axis, axis)
    prior = torch.zeros(len(x), dtype=F64)
    for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES):
        quadratic = ((x - mean) @ torch.linalg.inv(covariance) * (x - mean)).sum(1)
        prior += weight / covariance.det().sqrt() * torch.exp(-0.5 * quadratic)
    denoiser = GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS)
    for u in points(4, 2) * math.hypot(level.alpha, level.sigma) / 2:
        joint = prior * torch.exp(-((u - level.alpha * x) ** 2).sum(1) / (2 * level.sigma**2))
        x0 = (joint[:, None] * x).sum(0) / joint.sum()
        close(denoiser(u[None], level).x0[0], x0, 1e-10)  # 130321 terms: 130321 u = 1.4e-11 at worst
        # The density itself: the integral of p(x) N(u; alpha x, sigma^2 I), with both normalisations 1 / (2 pi).
        density = joint.sum() * (9 / 360) ** 2 / ((2 * math.pi) ** 2 * level.sigma**2)
        close(denoiser.log_prob(u[None], level)[0], density.log(), 1e-10)


# ---------------------------------------------------------------------------------------------- identities


@every_process
@pytest.mark.parametrize("t", [1.0, 0.5, 0.125])
@pytest.mark.parametrize("covariance", [0.04, torch.tensor([0.04, 0.1, 0.02]), COVARIANCES[0], COVARIANCES], ids=str)
def test_score_is_the_gradient_of_the_log_density(process, t, covariance):
    # Tweedie's formula: E[eps | u] = -sigma grad log p(u).
    denoiser = GaussianMixture(process, MEANS, covariance, WEIGHTS)
    level = process.level(t)
    u = points(16, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_prob(u, level).sum(), u)
    # Two ways to sum numbers of size |u| / sigma^2 <= 500 here: u 500 = 1e-13.
    close(denoiser(u.detach(), level).score, gradient, 1e-11)


@every_process
def test_one_component_against_the_textbook(process):
    # E[x0 | u] = m + alpha C (alpha^2 C + sigma^2 I)^-1 (u - alpha m), with a linear solve instead of eigenvectors.
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(4, 4, generator=generator, dtype=F64)
    covariance, mean = root @ root.T / 4, torch.randn(1, 2, 2, generator=generator, dtype=F64)
    denoiser = GaussianMixture(process, mean, covariance)
    level = process.level(0.4)
    u = points(5, 2, 2)
    noisy = level.alpha**2 * covariance + level.sigma**2 * torch.eye(4, dtype=F64)
    residual = (u - level.alpha * mean).flatten(1)
    x0 = mean + (level.alpha * torch.linalg.solve(noisy, residual.T).T @ covariance).reshape(5, 2, 2)
    close(denoiser(u, level).x0, x0, 1e-12)  # condition number of `noisy` below 1e3: 1e3 u = 1e-13
    log_prob = torch.distributions.MultivariateNormal(level.alpha * mean.flatten(), noisy).log_prob(u.flatten(1))
    close(denoiser.log_prob(u, level), log_prob, 1e-12)


@every_process
def test_all_ways_to_write_one_covariance_agree(process):
    level, u = process.level(0.3), points(6, 2)
    same = [
        0.07,
        torch.full((3,), 0.07),
        0.07 * torch.eye(2, dtype=F64),
        (0.07 * torch.eye(2, dtype=F64)).expand(3, 2, 2),
    ]
    same[1] = same[1].double().fill_(0.07)
    first, *others = [GaussianMixture(process, MEANS, covariance, 10 * WEIGHTS) for covariance in same]
    for other in others:
        close(other(u, level).x0, first(u, level).x0, 1e-13)
        close(other.log_prob(u, level), first.log_prob(u, level), 1e-13)


@every_process
def test_singular_covariance_keeps_predictions_on_its_line(process):
    direction = torch.tensor([0.6, 0.8], dtype=F64)
    covariance = 0.3 * torch.outer(direction, direction)
    denoiser = GaussianMixture(process, MEANS[:1], covariance)
    assert denoiser.variances.min() == 0
    level = process.level(0.5)
    x0 = denoiser(points(8, 2), level).x0 - MEANS[0]
    across = torch.tensor([-0.8, 0.6], dtype=F64)
    close(x0 @ across, torch.zeros(8, dtype=F64), 1e-15 * 4)
    assert (x0 @ direction).abs().min() > 1e-4
    # Along the line it is the one-dimensional answer; the limit of C + d I moves it by O(d / sigma^2).
    nearly = GaussianMixture(process, MEANS[:1], covariance + 1e-9 * torch.eye(2, dtype=F64))
    close(nearly(points(8, 2), level).x0, denoiser(points(8, 2), level).x0, 1e-9 * 10 / level.sigma**2)


@every_process
def test_negative_and_misshapen_covariances_are_refused(process):
    for wrong in (-0.1, torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.eye(3), torch.ones(2)):
        with pytest.raises(ParameterError, match="covariance"):
            GaussianMixture(process, MEANS, wrong)
    with pytest.raises(ParameterError, match="weights"):
        GaussianMixture(process, MEANS, 0.1, [0.5, 0.5, 0.0])


@every_process
@pytest.mark.parametrize("t", [1.0, 0.4, 0.125])
def test_empirical_against_a_naive_loop(process, t):
    data, u = points(7, 3, seed=4) / 2, points(5, 3, seed=5)
    level = process.level(t)
    actual = Empirical(process, data)(u, level)
    for i, state in enumerate(u.tolist()):
        exponents = [
            -sum((s - level.alpha * d) ** 2 for s, d in zip(state, row)) / (2 * level.sigma**2) for row in data.tolist()
        ]
        top = max(exponents)
        weights = [math.exp(e - top) for e in exponents]
        x0 = [sum(w * row[j] for w, row in zip(weights, data.tolist())) / sum(weights) for j in range(3)]
        # Exponents of size |u|^2 / (2 sigma^2) <= 1e3 carry 1e3 u = 1e-13 into the weights.
        close(actual.x0[i], torch.tensor(x0, dtype=F64), 1e-11)
    close(level.alpha * actual.x0 + level.sigma * actual.eps, u, 1e-14 * 4)


@every_process
def test_a_mixture_of_points_is_the_empirical_denoiser(process):
    data, u = points(9, 2, 3, seed=6), points(4, 2, 3, seed=7)
    for level in process.levels_at([1.0, 0.5, 0.2]):
        close(GaussianMixture(process, data, 0.0)(u, level).x0, Empirical(process, data)(u, level).x0, 1e-11)


def test_empirical_optimum_is_not_beaten_by_a_neighbour():
    # The denoiser minimises E |D(u) - x0|^2 over all functions; on a fixed u the minimum over constants is the weighted
    # mean, so moving the answer by d in any direction adds |d|^2 exactly.
    process, data = NCSN(0.05, 3.0, 8), points(7, 2, seed=4)
    level, u = process.level(0.7), points(1, 2)
    weights = torch.softmax(-((u - data) ** 2).sum(1) / (2 * level.sigma**2), 0)
    best = Empirical(process, data)(u, level).x0

    def risk(x0):
        return (weights * ((x0 - data) ** 2).sum(1)).sum()

    for d in (torch.tensor([0.1, 0.0]), torch.tensor([-0.2, 0.3])):
        close(risk(best + d) - risk(best), d.double().square().sum(), 1e-7)  # d is float32


def exact_denoisers(process):
    return [
        GaussianMixture(process, MEANS, 0.04, WEIGHTS),
        GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS),
        Empirical(process, points(7, 2, seed=8)),
    ]


@every_process
def test_one_time_per_sample_is_each_sample_alone(process):
    t = torch.tensor([1.0, 0.7, 0.35, 0.125], dtype=F64)
    u = points(4, 2)
    for denoiser in exact_denoisers(process):
        together = denoiser(u, process.level(t, u))
        for i, level in enumerate(process.levels_at(t)):
            alone = denoiser(u[i : i + 1], level)
            close(together.x0[i : i + 1], alone.x0, 1e-12)
            close(together.eps[i : i + 1], alone.eps, 1e-12)


@every_process
def test_float32_states_are_answered_in_float32_and_computed_in_float64(process):
    u = points(6, 2).float()
    for denoiser in exact_denoisers(process):
        for level in process.levels_at([1.0, 0.5, process.t_min]):
            single, double = denoiser(u, level), denoiser(u.double(), level)
            assert single.x0.dtype == single.eps.dtype == torch.float32
            torch.testing.assert_close(single.x0, double.x0.float(), rtol=2**-23, atol=1e-30)
            torch.testing.assert_close(single.eps, double.eps.float(), rtol=2**-23, atol=1e-30)


def test_pure_noise_predicts_the_mean():
    process = DDPM(10, ZeroTerminalSNR())
    u = points(5, 2)
    prediction = GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS)(u, process.level(1.0))
    close(prediction.x0, (WEIGHTS[:, None] * MEANS).sum(0).expand(5, 2), 1e-15 * 4)
    assert torch.equal(prediction.eps, u)


# ---------------------------------------------------------------------------------------------- draw


@pytest.mark.parametrize("covariance", [0.04, COVARIANCES], ids=["isotropic", "full"])
def test_draws_have_the_moments_of_the_mixture(covariance):
    # n draws: a mean of y is known to sqrt(Var y / n), with Var y estimated from the draws themselves. Five of these.
    n = 100_000
    generator = torch.Generator().manual_seed(9)
    noise = torch.randn(n, 2, generator=generator, dtype=F64)
    x = GaussianMixture(DDPM(), MEANS, covariance, WEIGHTS).draw(noise, torch.rand(n, generator=generator, dtype=F64))
    matrices = covariance if isinstance(covariance, torch.Tensor) else (covariance * torch.eye(2)).expand(3, 2, 2)
    mean = WEIGHTS @ MEANS
    second = sum(w * (c + torch.outer(m, m)) for w, c, m in zip(WEIGHTS, matrices, MEANS))
    products = x[:, :, None] * x[:, None, :]
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / math.sqrt(n)).all()
    assert ((products.mean(0) - second).abs() < 5 * products.std(0) / math.sqrt(n)).all()


def test_draws_meet_every_component_in_its_share():
    # Points at the middle of 1000 equal cells of [0, 1): the shares are exact to one cell. No noise: exactly the means.
    uniform = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    x = GaussianMixture(DDPM(), MEANS, 0.3, WEIGHTS).draw(torch.zeros(1000, 2, dtype=F64), uniform)
    assert [int((x == mean).all(1).sum()) for mean in MEANS] == [500, 300, 200]
