"""All processes x all solvers: the samples have the mean, the covariance and the energy distance of the exact data."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from pairs import rotating

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.grid import default_grid
from unidiff.process.level import eps_of
from unidiff.recipe.registry import PUBLIC

F64 = torch.float64
COUNT = 500
COVARIANCE = torch.tensor([[0.05, 0.02], [0.02, 0.05]], dtype=F64)  # diagonal in pixels' cosines, too
MEANS = [[-0.6, 0.3], [0.5, -0.2]]


def processes() -> list[ud.Process]:
    data = ud.GaussianMixture(ud.VPSDE(), MEANS, COVARIANCE)
    generator = torch.Generator().manual_seed(0)
    x = data.draw(torch.randn(4000, 2, generator=generator, dtype=F64), torch.rand(4000, generator=generator))
    known = {
        "NCSN": ud.NCSN(0.01, 20.0, 60),
        "RenormalizedHeat": ud.RenormalizedHeat((2,), 0.5).fit([x]),
        "Blurring": ud.Blurring((2,), 2.0),
        "InverseHeat": ud.InverseHeat((2,), 0.8, levels=100).fit([x]),  # its prior is these data, blurred
    }
    found = [known.get(name) or cls() for name, cls in PUBLIC.choices(ud.Process).items()]
    return [*found, ud.DDPM(200, ud.ZeroTerminalSNR())]


PROCESSES = processes()
# What is left of a method's own bias at 100 steps, in units of the data's variance. Deterministic methods of order 2
# and more: nothing beside the sampling error. Methods of order 1 over a range of log(q) of about 10: at most 10 / 100;
# Euler in t, whose sigma is exponential on VE, three times that. A corrector's excess is 2 snr^2 for each of the
# coordinates' ratios |z|^2 / |score|^2, which in two dimensions have no mean. What the noise must be to the last digit
# is tested in test_stochastic.py.
BIAS = {"PredictorCorrector": 0.5, "EDMStochastic": 0.02, "Euler": 0.3}
ORDER_1 = 0.1


def model_of(process: ud.Process) -> ud.GaussianMixture:
    return ud.GaussianMixture(process, MEANS, COVARIANCE)


class TwoGaussians(ud.GaussianMixture):
    """The mixture of two Gaussians of one covariance, in a tenth of the time where all modes have one SNR.

    Along the axes of the covariance, z = u E, the log odds of the components are linear in z, and given their mean
    m = w m_0 + (1 - w) m_1 the posterior is that of one Gaussian:
    x0 = m + alpha C (alpha^2 C + sigma^2)^-1 (z - alpha m).
    """

    def __init__(self, process: ud.Process) -> None:
        super().__init__(process, MEANS, COVARIANCE)
        self.along = self.means if self.axes is None else self.means @ self.axes[0]

    def forward(self, u, level, **cond):
        if self.axes is None or torch.is_tensor(level.alpha) or torch.is_tensor(level.sigma):
            return super().forward(u, level, **cond)
        axes, spread, gap = self.axes[0], self.variances[0], self.along[0] - self.along[1]
        variance = level.alpha**2 * spread + level.sigma**2
        middle = level.alpha * self.along.mean(0)
        weights = level.alpha * gap / variance
        rows = u.to(F64) @ axes
        share = torch.sigmoid(rows @ weights - middle @ weights)
        mean = torch.addcmul(self.along[1], share[:, None], gap)
        gain = level.alpha * spread / variance
        x0 = torch.addcmul((1 - level.alpha * gain) * mean, rows, gain) @ axes.T
        return ud.Prediction(x0.to(u.dtype), eps_of(x0, u, level).to(u.dtype), level)


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.NCSN(0.01, 20.0, 60), ud.FlowMatching()], ids=repr)
def test_two_gaussians_are_the_mixture(process):
    u = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for level in process.levels_at([1.0, 0.5, process.t_min]):
        found, expected = TwoGaussians(process)(u * level.sigma, level), model_of(process)(u * level.sigma, level)
        # eps is a difference divided by sigma, of at least 1e-3; both are good to some 100 roundings.
        torch.testing.assert_close(found.x0, expected.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.eps, expected.eps, rtol=1e-9, atol=1e-9)


def solver_of(name: str, process: ud.Process) -> ud.Solver:
    if name == "AnnealedLangevin":  # k = 0.2 at each level: steps in units of the smallest level
        level = process.level(process.t_min)
        return ud.AnnealedLangevin(5, 0.2 * float(torch.as_tensor(level.sigma / level.alpha, dtype=F64).min()) ** 2)
    cls = PUBLIC.choices(ud.Solver)[name]
    return cls(snr=0.02) if name == "PredictorCorrector" else cls()


@functools.cache
def times_of(process: ud.Process, grid: ud.Grid) -> list[float]:
    """The times that solvers share."""
    return grid.times(process)


@functools.cache
def exact_samples() -> tuple[torch.Tensor, float]:
    """Exact data, which are the same whatever the process, and their mean distance."""
    generator = torch.Generator().manual_seed(6)
    exact = model_of(ud.VPSDE()).draw(
        torch.randn(2 * COUNT, 2, generator=generator, dtype=F64),
        torch.rand(2 * COUNT, generator=generator, dtype=F64),
    )
    return exact, within(exact)


def within(x: torch.Tensor) -> float:
    """E|x - x'|, unbiased."""
    return float(distances(x, x).sum()) / (len(x) * (len(x) - 1))


def distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # which in two dimensions is the faster


def energy(x: torch.Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo 2013), unbiased, where y are exact data."""
    exact, own = exact_samples()
    return 2 * float(distances(x, exact).mean()) - within(x) - own


@pytest.mark.parametrize(
    ("name", "process"),
    # Langevin's chain, at one level, does not pass between modes: exact/test_langevin.py.
    rotating([name for name in PUBLIC.choices(ud.Solver) if name != "Langevin"], PROCESSES, 1),
    ids=lambda value: value if isinstance(value, str) else type(value).__name__ + str(getattr(value, "T", "")),
)
def test_samples_are_those_of_the_data(process, name):
    model, solver = TwoGaussians(process), solver_of(name, process)
    generator = torch.Generator().manual_seed(5)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    steps = 100
    grid = (
        ud.Quadratic(steps)
        if name in ("Euler", "EulerMaruyama", "Heun", "ProbabilityFlow")
        else default_grid(process, steps)
    )
    if name == "ProbabilityFlow":
        grid = ud.Uniform(2)  # an adaptive method chooses its own times
    try:
        solver.check(process)
    except ParameterError:
        assert process.basis.shape or process.level(1.0).alpha == 0
        return
    start = process.start(noise, torch.empty(COUNT, 2, dtype=F64))
    *_, last = solver.trajectory(model, start, times_of(process, grid), noise)
    x = process.basis.inverse(last.u)
    assert x.isfinite().all()
    if name == "PredictorCorrector":  # a few samples where the score is next to 0 are thrown far, one in a thousand
        assert ((x.abs() > 2).sum(0) < 0.01 * COUNT).all()
        x = x.clamp(-2, 2)

    mean = torch.tensor(MEANS, dtype=F64).mean(0)
    centred = torch.tensor(MEANS, dtype=F64) - mean
    covariance = centred.T @ centred / 2 + COVARIANCE
    bias = BIAS.get(name, ORDER_1 if (solver.convergence or 1) < 2 else 0.02)
    # Five standard errors of n samples, those of the covariance with the fourth moment of a normal (a mixture's
    # is smaller); beside them the bias of the method, in units of the variance.
    scale = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * scale / math.sqrt(COUNT) + 0.3 * bias * scale).all()
    error = (x.T.cov() - covariance).abs() / torch.outer(scale, scale)
    assert error.max() < 5 * math.sqrt(2 / COUNT) + bias
    # Under equality n m / (n + m) times the distance is a sum of chi-squares of mean 2 E|x - x'| <= 2; ten times it.
    # A bias b of the scale moves the distance by about b^2 E|x|.
    bound = 10 * 2 * exact_samples()[1] / (2 / 3 * COUNT)
    assert energy(x) < bound + bias**2


SLOW = pytest.param(1100, marks=pytest.mark.slow)  # 6 s: more steps than the tables of most have entries


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50, SLOW])
def test_the_default_is_finite_in_float32_for_any_number_of_steps(steps):
    for process in PROCESSES:
        # Where modes differ the weights of each step are computed alone: for time, only more than InverseHeat has.
        count = min(steps, 120) if process.basis.shape else steps
        x = ud.sample(TwoGaussians(process), grid=default_grid(process, count), seeds=2).x
        assert x.dtype == torch.float32
        assert x.abs().max() < 3, (process, count)


def test_methods_that_are_one_at_order_1():
    model = model_of(ud.VPSDE())

    def end(solver: ud.Solver) -> torch.Tensor:
        return ud.sample(model, solver, ud.Tapered(15), seeds=5, dtype=F64).x

    for solver in (ud.AdamsBashforth(1), ud.DEIS(1), ud.DPMSolver(1), ud.DPMSolverSinglestep(1)):
        torch.testing.assert_close(end(solver), end(ud.DDIM()), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(end(ud.EulerMaruyama(eta=0.0)), end(ud.Euler()), rtol=1e-12, atol=1e-12)
    # eta = 1 of the first order is Ancestral with the small variance, drawn from the same noise.
    torch.testing.assert_close(end(ud.DPMSolver(1, eta=1.0)), end(ud.Ancestral()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_between_0_and_1_has_two_meanings(eta):
    # A step with z = 1 and 0: DDIM adds eta sigma_s sqrt(1 - e^(-2h)), DPMSolver sigma_s sqrt(1 - e^(-2 eta^2 h)).
    process = ud.VPSDE()
    model, u = model_of(process), torch.tensor([[0.4, -0.3]], dtype=F64)
    t, s = process.levels_at([0.5, 0.3])
    h = (s.log_snr - t.log_snr) / 2
    steps = {}
    for solver in (ud.DDIM(eta), ud.DPMSolver(1, eta)):
        mean, drawn = (
            next(iter(solver.states(model, u, [t, s], noise))) for noise in (torch.zeros_like, torch.ones_like)
        )
        steps[type(solver)] = mean
        std = math.sqrt(
            -math.expm1(-2 * eta**2 * h) if type(solver) is ud.DPMSolver else -(eta**2) * math.expm1(-2 * h)
        )
        torch.testing.assert_close(drawn - mean, torch.full_like(u, s.sigma * std), rtol=1e-9, atol=1e-12)
    same = bool((steps[ud.DDIM] - steps[ud.DPMSolver]).abs().max() < 1e-9)
    assert same == (eta in (0.0, 1.0))


def test_probability_flow_meets_its_tolerance_and_stays_inside():
    asked: list[float] = []

    class Watched(ud.GaussianMixture):
        def forward(self, u, level, **cond):
            asked.append(float(level.time))
            return super().forward(u, level, **cond)

    process = ud.VPSDE()
    model = Watched(process, [[0.3]], 0.25)
    first, last = process.level(1.0), process.level(process.t_min)
    spread = [math.sqrt(level.alpha**2 * 0.25 + level.sigma**2) for level in (first, last)]
    u = torch.tensor([[0.8]], dtype=F64)
    truth = last.alpha * 0.3 + spread[1] / spread[0] * (0.8 - first.alpha * 0.3)
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        solver = ud.ProbabilityFlow(rtol=tolerance, atol=tolerance)
        *_, state, _ = solver.trajectory(model, u, ud.Uniform(5).times(process), torch.zeros_like)
        errors.append(abs(float(state.u) - truth))
        assert errors[-1] < 100 * tolerance  # times the number of steps
    assert errors[2] < errors[0] / 10
    assert process.t_min <= min(asked) <= max(asked) <= 1


@pytest.mark.slow  # a second or more
def test_dopri8_meets_its_tolerance_on_the_whole_path():
    # Of a Gaussian, in closed form. Interpolated, of order 4, the path was 2,800 tolerances off.
    process, tolerance, steps = ud.VPSDE(), 1e-9, 12
    times = ud.Uniform(steps).times(process)
    solver, start = ud.ProbabilityFlow("dopri8", tolerance, tolerance), torch.tensor([[0.8]], dtype=F64)
    states = [*solver.trajectory(ud.GaussianMixture(process, [[0.3]], 0.25), start, times, torch.zeros_like)][:-1]
    scale = [(level.alpha, math.hypot(level.alpha * 0.5, level.sigma)) for level in process.levels_at(times[:-1])]
    noise = (0.8 - 0.3 * scale[0][0]) / scale[0][1]
    for state, (alpha, spread) in zip(states, scale, strict=True):
        assert abs(float(state.u) - (0.3 * alpha + spread * noise)) < steps * tolerance  # one for each step


def test_a_flow_that_cannot_be_followed_is_refused():
    class Broken(ud.GaussianMixture):
        def forward(self, u, level, **cond):
            x0, eps, *_ = super().forward(u, level, **cond)
            return ud.Prediction(x0, eps * math.nan, level)

    with pytest.raises(ParameterError, match="denoiser: its probability flow cannot be solved"):
        ud.sample(Broken(ud.VPSDE(), [[0.3]], 0.25), ud.ProbabilityFlow())


def test_a_process_is_refused_before_any_step_and_asked_once():
    asked = []

    class Picky(ud.DDIM):
        def check(self, process):
            asked.append(process)
            raise ParameterError("solver", "not this one.")

    process = ud.VPSDE()
    model, u = model_of(process), torch.zeros(1, 2)
    with pytest.raises(ParameterError, match="not this one"):
        Picky().trajectory(model, u, [1.0, 0.5, 0.0], torch.zeros_like)
    with pytest.raises(ParameterError, match="not this one"):
        ud.sample(model, Picky())
    assert asked == [process] * 2


def test_the_corrector_is_algorithm_4_and_5():
    # Song et al. 2021, on entries 3, 2, 1 of a table: after the predictor to entry i, which adds beta_{i + 1} (eq. 46),
    # x + e s(x, i) + sqrt(2 e) z with e = 2 alpha_i (r |z| / |s|)^2 and alpha_i = 1 - beta_i, the entry's own.
    process, snr = ud.DDPM(T=3, schedule=ud.BetaTable((0.1, 0.3, 0.5))), 0.1
    model, generator = model_of(process), torch.Generator().manual_seed(3)
    draws = [torch.randn(1, 2, generator=generator, dtype=F64) for _ in range(5)]
    x, levels = draws[0], process.levels_at([1.0, 2 / 3, 1 / 3])
    betas, expected, numbers = [0.1, 0.3, 0.5], [], iter(draws[1:])
    for i in (1, 0):
        beta = betas[i + 1]
        x = (2 - math.sqrt(1 - beta)) * x + beta * model(x, levels[1 - i]).score + math.sqrt(beta) * next(numbers)
        score, z = model(x, levels[2 - i]).score, next(numbers)
        e = 2 * (1 - betas[i]) * (snr * z.norm() / score.norm()) ** 2
        x = x + e * score + (2 * e).sqrt() * z
        expected.append(x)
    numbers = iter(draws[1:])
    *found, _ = ud.PredictorCorrector(snr=snr).states(model, draws[0], levels, lambda like: next(numbers))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    # A step by itself knows the level that it came from alone, and takes its alpha, of entry 2 instead of 1.
    numbers = iter(draws[1:])
    alone = ud.PredictorCorrector(snr=snr).step(model, draws[0], *levels[:2], lambda like: next(numbers))
    numbers = iter(draws[1:])
    predicted = ud.ReverseDiffusion().step(model, draws[0], *levels[:2], lambda like: next(numbers))
    drift = (expected[0] - predicted) - (alone - predicted)
    assert drift.abs().max() > 1e-3
