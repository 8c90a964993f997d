"""Every solver that draws noise, against the published formulas written out by hand.

On data N(0, C) every step is linear in the state and in its noise. A run is followed as its coefficients on the start
and on each draw (tests/propagation.py), and they are compared one by one: the second moment of the samples is the sum
of their squares, and a noise that is wrong by a factor is wrong in one coefficient. Both sides are the same formulas in
float64, in other words and another order: 1e-9 of the largest coefficient is a million roundings.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mixtures import started
from propagation import follow

import unidiff as ud
from unidiff.process.level import Level
from unidiff.recipe.registry import PUBLIC

F64 = torch.float64
C = 0.3
VP, VE, TABLE = ud.VPSDE(), ud.VESDE(0.02, 20.0), ud.DDPM()


class Hand:
    """Coefficients, unit vectors for the noise, and the exact denoiser of N(0, C)."""

    def __init__(self, draws: int) -> None:
        self._units = iter(np.eye(draws + 1)[1:])

    def z(self) -> np.ndarray:
        return next(self._units)


def x0_of(u: np.ndarray, at: Level) -> np.ndarray:
    return at.alpha * C / (at.alpha**2 * C + at.sigma**2) * u


def score_of(u: np.ndarray, at: Level) -> np.ndarray:
    return -u / (at.alpha**2 * C + at.sigma**2)


def forward(t: Level, s: Level) -> tuple[float, float]:
    """The transition from s to t, u_t = r u_s + sqrt(q) z."""
    r = t.alpha / s.alpha
    return r, t.sigma**2 - r**2 * s.sigma**2


# One function for each solver: the state at s from the state u at t. `hand` hands out the noise.


def ancestral(solver, hand, u, t, s, past):
    # The bridge q(u_s | u_t, x0), Ho et al. 2020, eq. 7; its variance beta-tilde, or beta, or between (thesis eq. 4.1).
    r, q = forward(t, s)
    mean = r * s.sigma**2 / t.sigma**2 * u + s.alpha * q / t.sigma**2 * x0_of(u, t)
    small = s.sigma**2 * q / t.sigma**2
    share = solver.variance_interpolation or 0.0  # None is what the model has learned, and the small one here
    return mean + math.sqrt(q**share * small ** (1 - share)) * hand.z()


def ddim(solver, hand, u, t, s, past):
    # Song, Meng & Ermon 2021, eq. 12 and 16, for any alpha and sigma.
    q = forward(t, s)[1]
    std = solver.eta * s.sigma * math.sqrt(q) / t.sigma
    x0 = x0_of(u, t)
    eps = (u - t.alpha * x0) / t.sigma
    return s.alpha * x0 + math.sqrt(s.sigma**2 - std**2) * eps + std * hand.z()


def euler_maruyama(solver, hand, u, t, s, past):
    # Song et al. 2021, eq. 6 between eq. 13 and itself, for VPSDE: f = -beta u / 2, g^2 = beta = 0.1 + 19.9 t.
    h, beta = t.time - s.time, 0.1 + 19.9 * t.time
    drift = -beta / 2 * u - (1 + solver.eta**2) / 2 * beta * score_of(u, t)
    return u - h * drift + solver.eta * math.sqrt(beta * h) * hand.z()


def reverse_diffusion(solver, hand, u, t, s, past):
    r, q = forward(t, s)  # Song et al. 2021, eq. 46
    return (2 - r) * u + q * score_of(u, t) + math.sqrt(q) * hand.z()


def dpm(solver, hand, u, t, s, past):
    # The reverse SDE with eta of its noise, in lambda = log(alpha / sigma), h a step of it and y = lambda - lambda_s:
    # u_s = (sigma_s / sigma_t) e^(-eta^2 h) u + alpha_s int x0 d e^(k y) + sigma_s sqrt(1 - e^(-2 eta^2 h)) z,
    # k = 1 + eta^2 (Lu et al. 2022b, section 5, eta = 1). Order 2: x0 and half the slope, algorithm 2, line 9.
    past.insert(0, (t.log_snr / 2, x0_of(u, t)))
    del past[solver.order :]
    end, h = s.log_snr / 2, (s.log_snr - t.log_snr) / 2
    k = 1 + solver.eta**2
    if len(past) == 2:
        (now, new), (before, old) = past
        integral = -math.expm1(-k * h) * (new + h / (now - before) / 2 * (new - old))
    else:  # the polynomial by quadrature
        nodes, weights = np.polynomial.legendre.leggauss(20)
        y = h * (nodes - 1) / 2
        integral = np.zeros_like(u)
        for j, (own, value) in enumerate(past):
            others = [node for m, (node, _) in enumerate(past) if m != j]
            basis = np.prod([(y + end - node) / (own - node) for node in others], axis=0)
            integral = integral + (weights * k * np.exp(k * y) * basis).sum() * h / 2 * value
    kept = s.sigma / t.sigma * math.exp(-(solver.eta**2) * h)
    noise = s.sigma * math.sqrt(1 - math.exp(-2 * solver.eta**2 * h)) * hand.z() if solver.eta else 0.0
    return kept * u + s.alpha * integral + noise


def singlestep(solver, hand, u, t, s, past):
    # The same SDE by the midpoint rule: x0 of the state in the middle of lambda holds for the whole step, and the noise
    # of the step is that of its first half, decayed over the second, and that of the second.
    def part(u, x0, t, s, z):
        h, eta2 = (s.log_snr - t.log_snr) / 2, solver.eta**2
        noise = s.sigma * math.sqrt(1 - math.exp(-2 * eta2 * h)) * z
        kept = s.sigma / t.sigma * math.exp(-eta2 * h)
        return kept * u + s.alpha * (1 - math.exp(-(1 + eta2) * h)) * x0 + noise, noise, kept

    if solver.order == 1:
        return part(u, x0_of(u, t), t, s, hand.z())[0]
    log_snr = (t.log_snr + s.log_snr) / 2
    alpha2 = 1.0 if t.alpha == s.alpha == 1 else 1 / (1 + math.exp(-log_snr))  # VE, or VP
    middle = SimpleNamespace(alpha=math.sqrt(alpha2), sigma=math.sqrt(alpha2 * math.exp(-log_snr)), log_snr=log_snr)
    state, first, _ = part(u, x0_of(u, t), t, middle, hand.z())
    _, second, kept = part(u, u, middle, s, hand.z())
    return part(u, x0_of(state, middle), t, s, 0.0)[0] + kept * first + second


def multistep_consistency(solver, hand, u, t, s, past):
    return s.alpha * x0_of(u, t) + s.sigma * hand.z()  # Song et al. 2023, algorithm 1


def sa(solver, hand, u, t, s, past):
    # Xue et al. 2023, algorithm 1, with one value: predictor and corrector with the same noise. The corrector's x0 is
    # the line through both ends, whose integral against d e^(k y) over (-h, 0) is in closed form.
    h, k = (s.log_snr - t.log_snr) / 2, 1 + solver.tau**2
    kept = s.sigma / t.sigma * math.exp(-(solver.tau**2) * h)
    noise = s.sigma * math.sqrt(1 - math.exp(-2 * solver.tau**2 * h)) * hand.z()
    now, whole = past[-1] if past else x0_of(u, t), -math.expm1(-k * h)
    then = x0_of(kept * u + s.alpha * whole * now + noise, s)
    past.append(then)  # which is not evaluated again at the corrected state
    slope = 1 - whole / (k * h)  # int (y + h) / h d e^(k y)
    return kept * u + s.alpha * (whole * now + slope * (then - now)) + noise


def langevin_at(solver, hand, u, t, last):
    # Song & Ermon 2019, algorithm 1, in x = u / alpha with noise scales sigma / alpha.
    x, scale = u / t.alpha, t.sigma / t.alpha
    step = solver.step_size * scale**2 / (last.sigma / last.alpha) ** 2
    for _ in range(solver.steps_per_level):
        x = x + step / 2 * -x / (C + scale**2) + math.sqrt(step) * hand.z()
    return x


def by_hand(solver, rule, process, times, draws) -> np.ndarray:
    """Coefficients of the clean end."""
    levels, hand, past = process.levels_at(times[:-1]), Hand(draws), []
    u = np.zeros(draws + 1)
    u[0] = math.sqrt(levels[0].alpha ** 2 * C + levels[0].sigma ** 2)
    if rule is langevin_at:
        x = u / levels[0].alpha
        for t in levels:
            x = langevin_at(solver, hand, t.alpha * x, t, levels[-1])
        return x0_of(levels[-1].alpha * x, levels[-1]) if solver.denoise else x
    for t, s in pairwise(levels):
        u = rule(solver, hand, u, t, s, past)
    return past[-1] if rule is sa else x0_of(u, levels[-1])


def langevin(denoise: bool) -> ud.AnnealedLangevin:
    return ud.AnnealedLangevin(3, 0.4 * 0.02**2, denoise)  # k = 0.4 on VE


CASES = [
    *[(ud.Ancestral(v), ancestral, p, ud.Uniform(12)) for v in (0.0, 0.4, 1.0) for p in (TABLE, VE)],
    *[(ud.DDIM(eta), ddim, p, ud.Uniform(12)) for eta in (0.5, 1.0) for p in (TABLE, VE)],
    *[(ud.EulerMaruyama(eta), euler_maruyama, VP, ud.Quadratic(12)) for eta in (0.5, 1.0)],
    *[(ud.ReverseDiffusion(), reverse_diffusion, p, ud.Quadratic(12)) for p in (TABLE, VP, VE)],
    *[(ud.DPMSolver(o, eta), dpm, p, ud.LogSNR(12)) for o in (1, 2, 3) for eta in (0.5, 1.0) for p in (TABLE, VE)],
    *[
        (ud.DPMSolverSinglestep(o, e), singlestep, p, ud.LogSNR(12))
        for o in (1, 2)
        for e in (0.5, 1)
        for p in (TABLE, VE)
    ],
    *[(ud.MultistepConsistency(), multistep_consistency, p, ud.Uniform(12)) for p in (TABLE, VE)],
    *[(ud.SASolver(1, tau), sa, p, ud.LogSNR(12)) for tau in (0.5, 1.0) for p in (TABLE, VE)],
    *[(langevin(denoise), langevin_at, VE, ud.Uniform(5)) for denoise in (True, False)],
]


@pytest.mark.parametrize(
    ("solver", "rule", "process", "grid"), CASES, ids=lambda value: "" if callable(value) else repr(value)
)
def test_the_exact_coefficients_of_a_run(solver, rule, process, grid):
    times = grid.times(process)
    draws = solver.steps_per_level * (len(times) - 1) if rule is langevin_at else len(times) - 2
    if rule is singlestep:
        draws *= solver.order
    expected = by_hand(solver, rule, process, times, draws)
    found = follow(solver, process, times, C, draws)[-1].numpy()
    assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()
    assert (np.abs(expected[1:]) > 0).all()  # every draw counts


# ---------------------------------------------------------------------------------------------- Karras et al. 2022


def algorithm_2(denoise, x, scales, churn, smallest, largest, noise_scale, noise, highest):
    """Karras et al. 2022, algorithm 2, line by line, with D(x; sigma) = `denoise`; every x_i after the first.

    `highest` is not theirs: the noise is not raised above the scale that the model knows.
    """
    count = len(scales) - 1  # N; t_N = 0
    found = []
    for i in range(count):
        t = scales[i]
        gamma = min(churn / count, math.sqrt(2) - 1) if smallest <= t <= largest else 0.0
        hat = min(t + gamma * t, highest)
        x_hat = x
        if hat > t:
            x_hat = x + math.sqrt(hat**2 - t**2) * noise_scale * noise(x)
        d = (x_hat - denoise(x_hat, hat)) / hat
        x = x_hat + (scales[i + 1] - hat) * d
        if scales[i + 1] != 0:
            d_next = (x - denoise(x, scales[i + 1])) / scales[i + 1]
            x = x_hat + (scales[i + 1] - hat) * (d / 2 + d_next / 2)
        found.append(x)
    return found


CHURNS = [
    {"churn": 5.0},
    {"churn": 40.0, "sigma_min": 0.05, "sigma_max": 10.0, "noise_scale": 1.007},
    {"churn": 1000.0, "sigma_min": 1.0, "noise_scale": 0.9},  # gamma at its largest, sqrt(2) - 1
]


@pytest.mark.parametrize("process", [ud.EDM(), TABLE, VE], ids=lambda process: type(process).__name__)
@pytest.mark.parametrize("options", CHURNS, ids=str)
def test_edm_is_algorithm_2(process, options):
    # In x = u / alpha, on the noise scales of the process. Its levels between the grid's are found by inverting the
    # SNR, to about 1e-12, and x begins at 100: 1e-8.
    model = ud.GaussianMixture(process, [[-0.7, 0.2], [0.6, 0.5]], 0.05)
    times = ud.Tapered(20).times(process)
    levels = process.levels_at(times[:-1])
    scales = [level.sigma / level.alpha for level in levels] + [0.0]
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    theirs, ours = (lambda like, g=g: torch.randn(like.shape, generator=g, dtype=like.dtype) for g in draws)

    def denoise(x: torch.Tensor, scale: float) -> torch.Tensor:
        return model(x, Level(math.nan, 1.0, scale, math.nan)).x0

    start = started(process, torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=F64))
    arguments = {"sigma_min": 0.0, "sigma_max": math.inf, "noise_scale": 1.0, **options}
    ordered = [arguments[name] for name in ("churn", "sigma_min", "sigma_max", "noise_scale")]
    expected = algorithm_2(denoise, start / levels[0].alpha, scales, *ordered, theirs, scales[0])
    states = [state.u for state in ud.EDMStochastic(**options).trajectory(model, start, times, ours)][1:]
    for u, alpha, x in zip(states, [level.alpha for level in levels[1:]] + [1.0], expected, strict=True):
        torch.testing.assert_close(u / alpha, x, rtol=1e-8, atol=1e-8)
    assert draws[0].get_state().equal(draws[1].get_state())  # as many draws


# ---------------------------------------------------------------------------------------------- correctors


@pytest.mark.parametrize("process", [VE, VP], ids=lambda process: type(process).__name__)
@pytest.mark.parametrize("predictor", [ud.ReverseDiffusion(), ud.Ancestral(), ud.DDIM()], ids=repr)
def test_a_corrector_s_variance_in_many_dimensions(process, predictor):
    # The step of a corrector depends on its noise, so a run is not linear. But in D dimensions |z|^2 is D and |score|^2
    # is D P / S^2, with P the variance of the state and S the marginal's, both to a relative sqrt(2 / D); then e =
    # 2 r^2 snr^2 S^2 / P, r the ratio of alpha here and a level below, and P becomes (1 - e / S)^2 P + 2 e. Each of the
    # 10 steps of a run of 6 adds such an error, and they shrink again: ten of them are allowed.
    size, snr, steps = 100_000, 0.3, 2
    times = ud.Quadratic(6).times(process)
    levels = process.levels_at(times[:-1])
    rules = {"ReverseDiffusion": reverse_diffusion, "Ancestral": ancestral, "DDIM": ddim}
    variance = levels[0].alpha ** 2 * C + levels[0].sigma ** 2
    start = math.sqrt(variance)
    below = [*(level.alpha for level in levels[2:]), 1.0]
    for (t, s), alpha in zip(pairwise(levels), below, strict=True):
        a, b = rules[type(predictor).__name__](predictor, Hand(1), np.array([1.0, 0.0]), t, s, [])
        variance = a**2 * variance + b**2
        marginal = s.alpha**2 * C + s.sigma**2
        for _ in range(steps):
            e = 2 * (s.alpha / alpha * snr) ** 2 * marginal**2 / variance
            variance = (1 - e / marginal) ** 2 * variance + 2 * e
    model = ud.GaussianMixture(process, torch.zeros(1, size, dtype=F64), C)
    generator = torch.Generator().manual_seed(5)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    u = start * noise(torch.empty(1, size, dtype=F64))
    *_, state, _ = ud.PredictorCorrector(predictor, steps, snr).trajectory(model, u, times, noise)
    assert float(state.u.square().mean()) == pytest.approx(variance, rel=10 * math.sqrt(2 / size))


def draws_noise(solver: ud.Solver) -> bool:
    drawn = []

    def noise(like: torch.Tensor) -> torch.Tensor:
        drawn.append(like)
        return torch.zeros_like(like)

    list(solver.trajectory(ud.GaussianMixture(VE, [[0.0]], C), torch.ones(1, 1), ud.Tapered(3).times(VE), noise))
    return len(drawn) > 0


def test_every_solver_that_draws_noise_is_held():
    langevin = {"AnnealedLangevin": {"steps_per_level": 1}, "Langevin": {"steps": 1}}
    others = {
        **langevin,
        "DDIM": {"eta": 1.0},
        "DPMSolver": {"eta": 1.0},
        "DPMSolverSinglestep": {"eta": 1.0},
        "Restart": {"low": 0.0, "high": 1.0},
    }
    solvers = [cls(**others.get(name, {})) for name, cls in PUBLIC.choices(ud.Solver).items()]
    held = {type(solver).__name__ for solver, *_ in CASES} | {"EDMStochastic", "PredictorCorrector"}
    held |= {"Resampling", "Langevin", "Restart"}  # test_editing.py, test_langevin.py, test_orders.py
    assert {type(solver).__name__ for solver in solvers if draws_noise(solver)} == held
