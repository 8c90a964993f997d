"""The solvers, against published steps, closed-form distributions and their own order.

Two kinds of bounds. Identities between formulas hold up to rounding, u = 2^-53: a step adds numbers of size 10 at most,
divided by alpha >= 0.006, so 1e-12 leaves a factor of five, and is asked for unless a line says why not. Statistics of
n samples of variance P have standard errors sqrt(P / n) for the mean and P sqrt(2 / n) for the variance (Gaussian);
five of these are allowed: a right program fails one such test in two million, and the seeds are fixed.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import started
from torch import nn

import unidiff as ud
from unidiff import DDIM, DDPM, NCSN, Ancestral, AnnealedLangevin, Cosine, GaussianMixture, Native, Seeded, Uniform
from unidiff.errors import ParameterError
from unidiff.process.level import Level

F64 = torch.float64
MEANS = torch.tensor([[-0.7, 0.2], [0.6, 0.5], [0.1, -0.8]], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
PROCESSES = {"ddpm": DDPM(), "cosine": DDPM(schedule=Cosine()), "ncsn": NCSN(0.05, 3.0, 8)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mixture(process) -> GaussianMixture:
    return GaussianMixture(process, MEANS, 0.04, WEIGHTS)


def stream(seed: int):
    """Noise for a whole batch from one generator: fast, where no sample needs its own stream."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def end(states):
    *_, last = states
    return last.u


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


class Constant(nn.Module):
    """A network that answers with one tensor."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x, c):
        return self.answer


# ---------------------------------------------------------------------------------------------- published steps


def table(T: int, first: float = 1e-4, last: float = 0.02) -> tuple[list[float], list[float]]:
    """beta_0, ..., beta_T and alpha-bar_0, ..., alpha-bar_T, with beta_0 = 0 (Ho et al. 2020; Higham et al.)."""
    betas, bars = [0.0], [1.0]
    for i in range(T):
        betas.append(first + (last - first) * i / (T - 1))
        bars.append(bars[-1] * (1 - betas[-1]))
    return betas, bars


@pytest.mark.parametrize("T", [1000, 500], ids=["Ho et al.", "Higham et al."])
@pytest.mark.parametrize("variance", [0.0, 1.0, 0.3])
def test_ancestral_is_the_published_chain(T, variance):
    process, (betas, bars) = DDPM(T=T), table(T)
    u, eps = randn(3, 2, seed=1), randn(3, 2, seed=2)
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), Constant(eps))
    levels = process.levels_at(process.native_times())
    for i in (2, 3, 10, T // 2, T - 1, T):  # step i goes from x_i to x_{i-1}; the last one, i = 1, is tested below
        t, s = levels[i - 1], levels[i - 2]
        solver = Ancestral(variance)
        mean = solver.step(denoiser, u, t, s, torch.zeros_like)
        spread = solver.step(denoiser, u, t, s, torch.ones_like) - mean
        alpha, beta, bar, before = 1 - betas[i], betas[i], bars[i], bars[i - 1]
        x0 = (u - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        # Ho et al. 2020, eq. (7) = Higham et al., eq. (16)
        by_x0 = (math.sqrt(before) * beta * x0 + math.sqrt(alpha) * (1 - before) * u) / (1 - bar)
        by_eps = (u - (1 - alpha) / math.sqrt(1 - bar) * eps) / math.sqrt(alpha)  # Higham et al., eq. (18) and (19)
        close(mean, by_x0, 1e-10)
        close(mean, by_eps, 1e-10)
        small, large = (1 - before) / (1 - bar) * beta, beta  # beta-tilde = sigma_q^2 of Higham et al., eq. (15)
        expected = math.exp(variance * math.log(large) + (1 - variance) * math.log(small))  # thesis eq. 4.1
        close(spread**2, torch.full_like(u, expected), 1e-10)


@pytest.mark.parametrize("solver", [Ancestral(), Ancestral(1.0), DDIM(), DDIM(1.0)], ids=repr)
def test_the_last_step_is_a_mean(solver):
    # Higham et al., algorithm 2 with sigma_q(1) = 0 at t = 1:
    # x_0 = (x_1 - (1 - alpha_1) / sqrt(1 - alpha-bar_1) eps) / sqrt(alpha_1).
    process, (betas, _) = DDPM(), table(1000)
    u, eps = randn(3, 2, seed=1), randn(3, 2, seed=2)
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), Constant(eps))

    def no_noise(like):
        raise AssertionError("the last step draws no noise")

    start, final = solver.trajectory(denoiser, u, [process.t_min, 0.0], no_noise)
    assert torch.equal(start.u, u)
    close(final.u, (u - betas[1] / math.sqrt(betas[1]) * eps) / math.sqrt(1 - betas[1]), 1e-12)
    assert (start.t, final.t) == (process.t_min, 0.0)


@pytest.mark.slow  # 1 s: a thousand steps
@every_process
@pytest.mark.parametrize("grid", [Native(), Uniform(23)], ids=repr)
def test_ddim_with_eta_1_is_ancestral_with_the_small_variance(process, grid):
    u, times, denoiser = started(process, randn(5, 2, seed=3)), grid.times(process), mixture(process)
    for t, s in zip(process.levels_at(times[:-1]), process.levels_at(times[1:-1])):
        pair = [solver.step(denoiser, u, t, s, stream(4)) for solver in (DDIM(1.0), Ancestral(0.0))]
        close(pair[0], pair[1], 1e-12 * process.prior_scale())
        u = pair[0]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_equations_12_and_16(eta):
    # Song, Meng & Ermon 2021, their alpha is alpha-bar. Steps over any part of the table, not neighbours only.
    process, (_, bars) = DDPM(), table(1000)
    u, eps, noise = randn(3, 2, seed=1), randn(3, 2, seed=2), randn(3, 2, seed=3)
    denoiser = ud.NeuralDenoiser(process, ud.Eps(), Constant(eps))
    for i, j in ((1000, 999), (1000, 500), (700, 30), (21, 20), (2, 1)):
        t, s = process.levels_at([i / 1000, j / 1000])
        a_t, a_s = bars[i], bars[j]
        sigma = eta * math.sqrt((1 - a_s) / (1 - a_t)) * math.sqrt(1 - a_t / a_s)  # (16)
        x0 = (u - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)  # (9)
        expected = math.sqrt(a_s) * x0 + math.sqrt(1 - a_s - sigma**2) * eps + sigma * noise  # (12)
        close(DDIM(eta).step(denoiser, u, t, s, lambda like: noise), expected, 1e-11)  # x0 is 157 |u| at i = 1000


def test_langevin_is_algorithm_3():
    # Thesis algorithm 3, with its levels sigma_1 > ... > sigma_L and every draw of noise prescribed.
    process, T, epsilon = NCSN(0.1, 2.0, 5), 4, 0.003
    denoiser = mixture(process)
    x = start = started(process, randn(6, 2, seed=5))
    sigmas = [2.0 * (0.1 / 2.0) ** (i / 4) for i in range(5)]
    noise = stream(6)
    for sigma in sigmas:
        step = epsilon * sigma**2 / sigmas[-1] ** 2  # line 3
        for _ in range(T):
            level = Level(math.nan, 1.0, sigma, math.nan)
            x = x + step / 2 * denoiser(x, level).score + math.sqrt(step) * noise(x)  # line 6
    solver = AnnealedLangevin(steps_per_level=T, step_size=epsilon, denoise=False)
    close(end(solver.trajectory(denoiser, start, Native().times(process), stream(6))), x)
    # With the denoise: Tweedie's formula x + sigma_L^2 score on top.
    level = Level(math.nan, 1.0, sigmas[-1], math.nan)
    denoised = end(AnnealedLangevin(T, epsilon).trajectory(denoiser, start, Native().times(process), stream(6)))
    close(denoised, x + sigmas[-1] ** 2 * denoiser(x, level).score)


def test_langevin_on_ddpm_is_langevin_on_the_ncsn_of_u_over_alpha():
    # x = u / alpha of a DDPM has noise scales sigma / alpha: algorithm 3 on those.
    process, T, epsilon = DDPM(), 2, 2e-5
    denoiser, times = mixture(process), Uniform(9).times(process)
    levels = process.levels_at(times[:-1])
    start = started(process, randn(6, 2, seed=5))
    x, noise = start / levels[0].alpha, stream(6)
    for at in levels:
        sigma, last = at.sigma / at.alpha, levels[-1].sigma / levels[-1].alpha
        step = epsilon * sigma**2 / last**2
        for _ in range(T):
            score = at.alpha * denoiser(at.alpha * x, at).score  # grad log p of x, with u = alpha x
            x = x + step / 2 * score + math.sqrt(step) * noise(x)
    solver = AnnealedLangevin(T, epsilon, denoise=False)
    close(end(solver.trajectory(denoiser, start, times, stream(6))), x, 1e-11)  # x starts at 157 |u|


# ---------------------------------------------------------------------------------------------- order


def flow(denoiser, u: torch.Tensor, steps: int) -> torch.Tensor:
    """The probability flow to t_min, d(u / alpha) / d(sigma / alpha) = eps (Song, Meng & Ermon 2021, eq. 14).

    RK4 in y = log(sigma / alpha), a smooth problem whatever the table: with alpha^2 + sigma^2 = 1 on a DDPM and
    alpha = 1 on an NCSN, the mixture's denoiser needs alpha and sigma only.
    """
    process = denoiser.process
    first, last = process.level(1.0), process.level(process.t_min)
    start, stop = -first.log_snr / 2, -last.log_snr / 2
    h = (stop - start) / steps

    def slope(y: float, x: torch.Tensor) -> torch.Tensor:
        ratio = math.exp(y)
        alpha = 1 / math.hypot(1, ratio) if isinstance(process, DDPM) else 1.0
        return ratio * denoiser(alpha * x, Level(math.nan, alpha, alpha * ratio, -2 * y)).eps

    x = u / first.alpha
    for i in range(steps):
        y = start + i * h
        k1 = slope(y, x)
        k2 = slope(y + h / 2, x + h / 2 * k1)
        k3 = slope(y + h / 2, x + h / 2 * k2)
        k4 = slope(y + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return last.alpha * x


@pytest.mark.slow  # 1 s: many steps; test_orders.py has all orders
@every_process
def test_ddim_converges_with_order_1(process):
    # The state at t_min, before the denoise that ends a run, against the exact flow to t_min. Halving the step should
    # halve the error; the slope is measured over N = 50, 100, 200, 400 and allowed 0.15.
    denoiser = mixture(process)
    u = started(process, randn(32, 2))
    reference = flow(denoiser, u, 400)
    # Order 4: halving the step shrinks the error of the reference by 16, so the difference bounds it. It is below a
    # fiftieth of the smallest DDIM error, and moves no slope by more than 0.03.
    assert (flow(denoiser, u, 200) - reference).abs().max() < 1e-5
    errors = []
    for steps in (50, 100, 200, 400):
        *_, last, _ = DDIM().trajectory(denoiser, u, Uniform(steps).times(process), torch.zeros_like)
        errors.append(float((last.u - reference).square().mean().sqrt()))
    assert errors[-1] > 1e-3 / 2
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(slope - DDIM.order) < 0.15 for slope in slopes), slopes


def extrapolate(solver, denoiser, t: Level, s: Level) -> tuple[float, float, float]:
    """(a, c, b) of a step u -> a u + c + b z, read off the solver: for Gaussian data every step is of this form."""
    u, z = torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [0.0], [1.0]]], dtype=F64)
    c, on_u, on_z = solver.step(denoiser, u, t, s, lambda like: z).flatten().tolist()
    return on_u - c, c, on_z - c


def moments_at_t_min(solver, process, m: float, C: float, steps: int) -> tuple[float, float]:
    """Exact mean and variance at t_min of a run that starts from the exact marginal at t = 1 of data N(m, C)."""
    denoiser = GaussianMixture(process, [[m]], C)
    levels = process.levels_at(Uniform(steps).times(process)[:-1])
    mean, variance = levels[0].alpha * m, levels[0].alpha ** 2 * C + levels[0].sigma ** 2
    for t, s in pairwise(levels):
        a, c, b = extrapolate(solver, denoiser, t, s)
        mean, variance = a * mean + c, a**2 * variance + b**2
    return mean, variance


@pytest.mark.cases(1)
@every_process
@pytest.mark.parametrize("solver", [Ancestral(), Ancestral(1.0), DDIM(0.5)], ids=repr)
def test_distribution_converges_with_order_1(process, solver):
    # Without sampling: the variance at t_min against alpha^2 C + sigma^2. C is neither 0 (where the small variance is
    # exact) nor 1 (where the large one is). Between the two variances the next term of the error is of relative size
    # 20 / N on an NCSN, so N starts at 400.
    at, m, C = process.level(process.t_min), 0.4, 0.3
    errors = []
    for steps in (400, 800):
        mean, variance = moments_at_t_min(solver, process, m, C, steps)
        errors.append(abs(variance - at.alpha**2 * C - at.sigma**2))
        # The mean of the data passes any of these steps exactly: x0 is predicted as m, eps as 0.
        assert mean == pytest.approx(at.alpha * m, abs=1e-10)
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(slope - solver.order) < 0.15 for slope in slopes), (slopes, errors)


@every_process
def test_the_small_variance_is_exact_for_data_at_a_point(process):
    at = process.level(process.t_min)
    for steps in (2, 7, 30):
        mean, variance = moments_at_t_min(Ancestral(0.0), process, 0.4, 0.0, steps)
        assert mean == pytest.approx(at.alpha * 0.4, abs=1e-11)
        assert variance == pytest.approx(at.sigma**2, rel=1e-11)


def test_the_large_variance_is_exact_for_standard_normal_data():
    for steps in (2, 7, 30):
        assert moments_at_t_min(Ancestral(1.0), DDPM(), 0.0, 1.0, steps)[1] == pytest.approx(1.0, rel=1e-11)


# ---------------------------------------------------------------------------------------------- distribution


def gaussian_run(solver, process, levels: list[Level], m: float, C: float) -> tuple[float, float]:
    """Mean and variance of a whole run on data N(m, C), by the published formulas, from the prior N(0, prior_scale^2).

    E[x0 | u] = k u + (1 - k alpha) m with k = alpha C / (alpha^2 C + sigma^2); E[eps | u] = (u - alpha E[x0 | u]) /
    sigma. So a step u -> a u + c + b z maps the mean to a mean + c and the variance to a^2 variance + b^2.
    """
    mean, variance = 0.0, process.prior_scale() ** 2

    def apply(a: float, c: float, b2: float) -> None:
        nonlocal mean, variance
        mean, variance = a * mean + c, a**2 * variance + b2

    def gain(at: Level) -> float:
        return at.alpha * C / (at.alpha**2 * C + at.sigma**2)

    def relax(at: Level) -> None:
        k = solver.step_size * (levels[-1].alpha / levels[-1].sigma) ** 2
        share = 1 - at.alpha * gain(at)  # of u - alpha m that is taken for noise
        for _ in range(solver.steps_per_level):
            apply(1 - k / 2 * share, k / 2 * share * at.alpha * m, k * at.sigma**2)

    for t, s in pairwise(levels):
        k = gain(t)
        if isinstance(solver, AnnealedLangevin):
            relax(t)
            apply(s.alpha / t.alpha, 0.0, 0.0)
            continue
        # The forward transition from s to t, u_t = r u_s + sqrt(q) z, and the variance of the bridge back.
        r = t.alpha / s.alpha
        q = t.sigma**2 - r**2 * s.sigma**2
        bridge = s.sigma**2 * q / t.sigma**2
        if isinstance(solver, Ancestral):
            on_u, on_x0 = r * s.sigma**2 / t.sigma**2, s.alpha * q / t.sigma**2
            share = solver.variance_interpolation or 0.0
            b2 = q**share * bridge ** (1 - share)
        else:
            b2 = solver.eta**2 * bridge
            on_u = math.sqrt(s.sigma**2 - b2) / t.sigma
            on_x0 = s.alpha - on_u * t.alpha
        apply(on_u + on_x0 * k, on_x0 * (1 - k * t.alpha) * m, b2)
    last = levels[-1]
    if isinstance(solver, AnnealedLangevin):
        relax(last)
        if not solver.denoise:
            apply(1 / last.alpha, 0.0, 0.0)
            return mean, variance
    apply(gain(last), (1 - gain(last) * last.alpha) * m, 0.0)
    return mean, variance


def langevin(process, denoise: bool, k: float = 0.4) -> AnnealedLangevin:
    at = process.level(process.t_min)
    return AnnealedLangevin(3, k * (at.sigma / at.alpha) ** 2, denoise)


SOLVERS = {
    "ancestral, small": lambda process: Ancestral(0.0),
    "ancestral, large": lambda process: Ancestral(1.0),
    "ddim": lambda process: DDIM(),
    "ddim, eta 0.5": lambda process: DDIM(0.5),
    "ddim, eta 1": lambda process: DDIM(1.0),
    "langevin": lambda process: langevin(process, True),
    "langevin, noisy": lambda process: langevin(process, False),
}
every_solver = pytest.mark.parametrize("make", SOLVERS.values(), ids=SOLVERS.keys())


@every_process
@every_solver
@pytest.mark.parametrize(("m", "C"), [(0.5, 0.3), (-1.0, 2.0)])
def test_gaussian_data_come_out_with_the_exact_moments_of_the_method(process, make, m, C):
    # One sample of 20,000 independent coordinates: isotropic Gaussian data do not couple them.
    n, solver, grid = 20_000, make(process), Uniform(12)
    denoiser = GaussianMixture(process, torch.full((1, n), m), C)
    x = ud.sample(denoiser, solver, grid, (n,), seeds=[11], dtype=F64).x
    mean, variance = gaussian_run(solver, process, process.levels_at(grid.times(process)[:-1]), m, C)
    assert x.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
    assert x.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_langevin_settles_at_its_biased_variance():
    # Data at one point m: u - m -> (1 - k/2) (u - m) + sqrt(k) sigma z settles at variance sigma^2 / (1 - k/4). After
    # 40 steps (1 - k/2)^80 = 1e-24 of the start is left at k = 1.
    n, process = 20_000, NCSN(0.5, 1.0, 2)
    denoiser = GaussianMixture(process, torch.full((1, n), 0.3), 0.0)
    x = ud.sample(denoiser, AnnealedLangevin(40, 0.25, denoise=False), Native(), (n,), [12], dtype=F64).x
    expected = 0.25 / (1 - 1 / 4)
    assert x.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
    assert x.mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(expected / n))


@pytest.mark.cases(1)
@pytest.mark.parametrize("process", [DDPM(), NCSN(0.02, 20.0, 12)], ids=["ddpm", "ncsn"])
@pytest.mark.parametrize("solver", [Ancestral(), Ancestral(1.0), DDIM(), DDIM(0.5), DDIM(1.0)], ids=repr)
def test_samples_become_the_mixture_as_steps_grow(process, solver):
    n = 4000
    mean = WEIGHTS @ MEANS
    total = (WEIGHTS[:, None] * (MEANS - mean)).T @ (MEANS - mean) + 0.04 * torch.eye(2, dtype=F64)

    def errors(steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        start = started(process, randn(n, 2, seed=13))
        x = end(solver.trajectory(mixture(process), start, Uniform(steps).times(process), stream(14)))
        centred = x - mean
        products = centred[:, :, None] * centred[:, None, :]
        return (x.mean(0) - mean).abs(), (products.mean(0) - total).abs(), products.std(0) / math.sqrt(n)

    # What is left of the method's error at N = 250, and of the prior's: taken from the exact recursion on Gaussian data
    # of every variance from one component's (0.04) to the mixture's largest, at the farthest mean; twice that, since a
    # mixture is none of them.
    levels = process.levels_at(Uniform(250).times(process)[:-1])
    variances = torch.linspace(0.04, float(torch.linalg.eigvalsh(total)[-1]), 6).tolist()
    runs = [(C, *gaussian_run(solver, process, levels, 0.8, C)) for C in variances]
    of_mean = 2 * max(abs(m - 0.8) for _, m, _ in runs)
    of_variance = 2 * max(abs(v - C) for C, _, v in runs)
    assert of_mean < 0.06
    assert of_variance < 0.05
    mean_error, second_error, standard_error = errors(250)
    assert (mean_error < 5 * total.diagonal().sqrt() / math.sqrt(n) + of_mean).all()
    assert (second_error < 5 * standard_error + of_variance).all()
    # And it did need the steps: with 3 the covariance is wrong by far more than the sampling error.
    assert errors(3)[1].max() > 2 * second_error.max()


# ---------------------------------------------------------------------------------------------- sample()


@every_process
@every_solver
def test_a_sample_depends_on_its_own_seed_alone(process, make):
    def run(seeds):
        return ud.sample(mixture(process), make(process), Uniform(15), (2,), seeds, dtype=F64).x

    together = run(range(16))
    assert torch.equal(run(16), together)
    # The same numbers summed by other kernels: u times the growth of a perturbation along the run, asked for 1e-12.
    close(run([7])[0], together[7])
    close(run([9, 2, 7]), together[[9, 2, 7]])
    assert (together[7] - together[8]).abs().max() > 1e-3


@every_process
def test_evaluations_are_counted(process):
    def nfe(solver, grid):
        return ud.sample(mixture(process), solver, grid, (2,), 2).nfe

    T = len(process.native_times())
    assert nfe(Ancestral(), Native()) == T
    for steps in (1, 2, 17):
        assert nfe(DDIM(), Uniform(steps)) == nfe(DDIM(1.0), Uniform(steps)) == steps
        solver = langevin(process, True)
        assert nfe(solver, Uniform(steps)) == steps * 3 + 1  # T evaluations a level, and the denoise
        assert nfe(langevin(process, False), Uniform(steps)) == steps * 3


@every_process
@every_solver
def test_trajectory_walks_the_grid_and_stays_finite(process, make):
    grid, calls = Uniform(9), []
    solution = ud.sample(
        mixture(process), make(process), grid, (2,), 3, keep=10, progress=lambda *done: calls.append(done)
    )
    assert calls == [(i, 9) for i in range(1, 10)]
    assert len(solution.path) == len(solution.times) == 10
    assert all(state.u.isfinite().all() for state in solution.path)
    assert torch.equal(solution.path[-1].u, solution.x)
    assert torch.equal(solution.times, grid.times(process))
    assert solution.x.dtype == torch.float32
    start = started(process, Seeded(range(3))(torch.empty(3, 2)))
    assert torch.equal(solution.path[0].u, start)
    few = ud.sample(mixture(process), make(process), grid, (2,), 3, keep=4).path
    assert [state.t for state in few] == [float(solution.times[i]) for i in (0, 3, 6, 9)]
    states = make(process).trajectory(mixture(process), start, grid.times(process), Seeded(range(3)))
    times = [state.t for state in states]
    assert times == grid.times(process).tolist()


def test_what_makes_no_sense_is_refused_before_any_step():
    class Untouchable(GaussianMixture):
        def forward(self, u, level, **cond):
            raise AssertionError("asked after all")

    for process in PROCESSES.values():
        denoiser = Untouchable(process, MEANS, 0.04)
        at = process.level(process.t_min)
        limit = 4 * (at.sigma / at.alpha) ** 2  # k = 4
        for step_size in (limit * 1.001, 100 * limit):
            with pytest.raises(ParameterError, match="step_size"):
                ud.sample(denoiser, AnnealedLangevin(1, step_size), Uniform(3), (2,), 1)
        AnnealedLangevin(1, limit * 0.999).check(process)
    denoiser = Untouchable(DDPM(10, ud.ZeroTerminalSNR()), MEANS, 0.04)
    with pytest.raises(ParameterError, match="alpha = 0"):
        ud.sample(denoiser, AnnealedLangevin(1, 1e-6), Uniform(3), (2,), 1)
    for wrong in (
        {"variance_interpolation": -0.1},
        {"variance_interpolation": 1.1},
        {"variance_interpolation": math.nan},
    ):
        with pytest.raises(ParameterError, match="variance"):
            Ancestral(**wrong)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ParameterError, match="eta"):
            DDIM(eta)
    for steps in (0, -3):
        with pytest.raises(ParameterError, match="steps"):
            Uniform(steps)


@pytest.mark.parametrize("solver", [Ancestral(), Ancestral(1.0), DDIM(), DDIM(0.5)], ids=repr)
def test_pure_noise_at_the_start_is_no_obstacle(solver):
    process = DDPM(100, ud.ZeroTerminalSNR())
    x = ud.sample(mixture(process), solver, Native(), (2,), 64, dtype=F64).x
    # Every sample is a denoise at t_min, sigma = 0.01: within six standard deviations of a component.
    assert (x[:, None] - MEANS).norm(dim=-1).min(1).values.max() < 6 * 0.2


# ---------------------------------------------------------------------------------------------- grids

GRID_PROCESSES = [*PROCESSES.values(), DDPM(T=2), NCSN(levels=2), DDPM(T=7, schedule=ud.ZeroTerminalSNR())]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.integers(1, 3000), index=st.integers(0, len(GRID_PROCESSES) - 1))
def test_uniform_grid(steps, index):
    process = GRID_PROCESSES[index]
    times = Uniform(steps).times(process)
    assert times.shape == (steps + 1,)
    assert times.dtype == F64
    assert (times[1:] < times[:-1]).all()
    assert times[0] == 1
    assert times[-1] == 0
    assert times[-2] == (process.t_min if steps > 1 else 1)
    gaps = times[:-2] - times[1:-1]
    if steps > 1:  # equal steps, to the rounding of numbers below 1
        close(gaps, torch.full_like(gaps, (1 - process.t_min) / (steps - 1)), 2.0**-50)
    # The noise falls at every step: no two times share an entry of the table.
    sigmas = [level.alpha / level.sigma for level in process.levels_at(times[:-1])]
    assert all(a < b for a, b in pairwise(sigmas))


@pytest.mark.parametrize("T", [2, 3, 50, 1000])
def test_native_and_uniform_are_one_grid_on_ddpm(T):
    close(Uniform(T).times(DDPM(T)), Native().times(DDPM(T)), 2.0**-51)
    close(Uniform(T).times(NCSN(levels=T)), Native().times(NCSN(levels=T)), 2.0**-51)


def test_native_refuses_a_process_without_a_table():
    class Continuous(NCSN):
        def native_times(self):
            return None

    with pytest.raises(ParameterError, match=r"grid: Native needs a table .* Use Uniform"):
        Native().check(Continuous())
    Uniform(5).check(Continuous())


def test_unipc_towards_noise_ends_with_a_step_that_is_not_corrected():
    process = ud.DDPM(1000, ud.ZeroTerminalSNR())
    model = ud.GaussianMixture(process, [[-0.6, 0.3], [0.5, -0.2]], 0.05)
    levels = process.levels_at([0.001, 0.2, 0.5, 1.0])  # where alpha = 0
    start = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    *_, state, clean = ud.UniPC(2).states(model, start, levels, torch.zeros_like)
    torch.testing.assert_close(clean, model(state, levels[-1]).x0, rtol=0, atol=0)
