"""The processes of the heat equation, held against their own mathematics.

Notation: lambda_k eigenvalues, S_k mean square of mode k of the data, R = sum_k lambda_k S_k their gradient energy.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from itertools import pairwise

import pytest
import torch
from mixtures import started

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.process.base import Process

F64 = torch.float64
EPS = torch.finfo(F64).eps
DIGITS = ud.data.Digits().open()


def digits() -> torch.Tensor:
    return DIGITS.batch(torch.arange(len(DIGITS))).to(F64)


def measured(**options) -> ud.RenormalizedHeat:
    return ud.RenormalizedHeat((8, 8), **options).fit([digits()])


def over(t, process):
    return torch.as_tensor(t, dtype=F64).reshape(-1, *[1] * len(process.basis.shape))


HEATS = [
    ud.RenormalizedHeat((28, 28)),
    ud.RenormalizedHeat((28, 28), 4.0, noise=ud.GaussianFreeField()),
    ud.RenormalizedHeat((12, 20), 4.0, noise=ud.DataSpectrum()),
    ud.RenormalizedHeat((28, 28), 20.0, floor=1e-3),
    ud.RenormalizedHeat((16,), 6.0, base=ud.VPSDE()),
    ud.RenormalizedHeat((128, 128), 128.0),
    measured(blur_max=1.5),
    measured(blur_max=1.5, noise=ud.DataSpectrum()),
]
OTHERS = [ud.Blurring((28, 28)), ud.Blurring((28, 28), 20.0, floor=0.0), ud.InverseHeat((28, 28))]


def each(processes):
    return pytest.mark.parametrize("process", processes, ids=lambda p: f"{type(p).__name__}-{p.shape}-{p.blur_max}")


# ---------------------------------------------------------------------------------------------- what is conserved


@each(HEATS)
def test_the_mean_gradient_energy_is_R_at_all_times(process):
    # E |grad u_t|^2 = sum_k lambda_k (alpha_k^2 S_k + sigma_k^2). Each of K terms has a few roundings.
    weight = process.basis.eigenvalues()
    truth = float((weight * process.power()).sum())
    for level in process.levels_at(torch.linspace(process.t_min, 1, 50)):
        energy = float((weight * (level.alpha**2 * process.power() + level.sigma**2)).sum())
        assert abs(energy / truth - 1) < 1e-12


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_the_gradient_energy_of_noisy_digits_is_R(dtype):
    # The same, of states made of the data that were measured: random in the noise and in the cross terms only.
    process = measured(blur_max=1.5)
    x = digits().to(dtype)
    u0 = process.basis.forward(x)
    weight = process.basis.eigenvalues().to(dtype)
    generator = torch.Generator().manual_seed(0)
    for t in (0.01, 0.3, 0.6, 1.0):
        level = process.level(torch.full((len(x),), t), u0)
        clean = (weight * (level.alpha * u0).square()).sum((1, 2, 3)).double()
        noise = (weight * level.sigma.expand_as(u0).square()).sum((1, 2, 3)).double()
        # With the expectation over the noise taken exactly: rounding of 64 terms is left.
        assert abs(float((clean + noise).mean()) / process.energy - 1) < 100 * torch.finfo(dtype).eps
        eps = torch.randn(u0.shape, generator=generator, dtype=dtype)
        energy = (weight * process.perturb(u0, eps, level).square()).sum((1, 2, 3)).double()
        assert (
            abs(float(energy.mean()) / process.energy - 1)
            < 5 * float(energy.std()) / math.sqrt(len(x)) / process.energy
        )


@pytest.mark.cases(4)
@each([*HEATS, *OTHERS])
def test_the_snr_of_no_mode_rises(process):
    t = over(torch.linspace(process.t_min, 1, 400), process)
    log_snr = process.log_snr(t)
    # -d log SNR / dt = -l' + 2 lambda tau' >= 0. The logarithm of a mode's SNR, up to 1e5 in size, is rounded.
    assert (log_snr.diff(dim=0) <= 8 * EPS * log_snr.abs()[1:]).all()
    t = t[::10]
    f, g2 = process.rates(t)
    scale = process.sigma(t) ** 2 * (f.abs() + 1)
    assert (g2 >= -1e-12 * scale).all()  # g^2 = sigma^2 kappa is a difference of rates of this size


@each([HEATS[0], HEATS[3], HEATS[6], *OTHERS])
def test_rates_are_the_differences_of_the_coefficients(process):
    # Central differences of order 2: h^2 / 6 times the third derivative (some 1e4 lambda tau') and rounding / h.
    t, h = over([0.1, 0.35, 0.6, 0.9], process), 1e-6
    f, g2 = process.rates(t)
    slope = (process.log_alpha(t + h) - process.log_alpha(t - h)) / (2 * h)
    assert torch.allclose(f, slope, rtol=1e-6, atol=1e-5)
    variance = (2 * process.log_sigma(t + h)).exp() - (2 * process.log_sigma(t - h)).exp()
    expected = variance / (2 * h) - 2 * slope * process.sigma(t) ** 2
    assert torch.allclose(g2, expected, rtol=1e-6, atol=1e-5)


def test_the_drift_is_the_renormalised_heat_equation_with_noise():
    # f_k = -lambda_k tau' + r(t), and r keeps the constraint: r R = tau' sum lambda^2 m - 1/2 sum lambda g^2, m the
    # mean square of the state (Higham, Higham & Grindrod, eq. 22, with the energy that the noise brings in).
    process = measured(blur_max=1.5)
    weight, power = process.basis.eigenvalues(), process.power()
    for t in (0.05, 0.3, 0.6, 0.95):
        at, h = over([t], process), 1e-6
        f, g2 = (rate[0] for rate in process.rates(at))
        pace = float((process.dissipation(at + h) - process.dissipation(at - h)).flatten()[0]) / (2 * h)
        r = (f + weight * pace)[weight > 0]
        assert torch.allclose(r, r[0].expand_as(r), rtol=0, atol=1e-7)  # the same for all modes
        m = process.alpha(at)[0] ** 2 * power + process.sigma(at)[0] ** 2
        expected = (pace * (weight**2 * m).sum() - 0.5 * (weight * g2).sum()) / process.energy
        assert abs(float(r[0] - expected)) < 1e-6


# ---------------------------------------------------------------------------------------------- what is contained


def test_without_blur_it_is_the_base():
    base = ud.VPSDE()
    process = ud.RenormalizedHeat((8, 8), 0.0, base=base)
    s2 = process.energy / float(process.basis.eigenvalues().sum())
    t = torch.linspace(1e-3, 1, 50, dtype=F64)
    alpha, sigma = process.alpha(over(t, process)), process.sigma(over(t, process))
    assert torch.allclose(alpha, over(base.alpha(t), process).expand_as(alpha), rtol=1e-12, atol=0)
    assert torch.allclose(sigma, (over(base.sigma(t), process) * math.sqrt(s2)).expand_as(sigma), rtol=1e-12, atol=0)
    unit = process.with_measured({"power": torch.ones(8, 8, dtype=F64)})  # white data of variance 1 give s = 1
    torch.testing.assert_close(unit.sigma(over(t, unit))[:, 3, 2], base.sigma(t), rtol=1e-12, atol=0)


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_white_noise_makes_it_blurring_times_a_function_of_time(floor):
    base = ud.CosineVP()
    heat = ud.RenormalizedHeat((28, 28), 20.0, floor=floor, base=base)
    blurring = ud.Blurring((28, 28), 20.0, floor=floor, base=base)
    t = over(torch.linspace(0.01, 1, 40), heat)
    offset = 2 * heat._log_noise  # a constant: the unit in which noise is measured
    gap = heat.log_snr(t) + offset - blurring.log_snr(t)
    assert (gap[:, heat.basis.eigenvalues() > 0].abs() < 1e-10).all()
    ratio = (heat.log_alpha(t) - blurring.log_alpha(t))[:, heat.basis.eigenvalues() > 0]
    assert ((ratio - ratio[:, :1]).abs() < 1e-10).all()


def test_blurring_is_the_papers():
    # Hoogeboom & Salimans 2023, appendix A: the scale (1 - d_min) exp(-lambda tau) + d_min, tau = sigma_B^2 / 2.
    process = ud.Blurring((4, 6), 20.0)
    t = 0.37
    blur = 20.0 * math.sin(math.pi * t / 2) ** 2
    angle = math.atan(math.exp(-5)) + t * (math.atan(math.exp(5)) - math.atan(math.exp(-5)))
    level = process.level(t)
    for i in range(4):
        for j in range(6):
            lam = math.pi**2 * (i**2 / 16 + j**2 / 36)
            d = 0.999 * math.exp(-lam * blur**2 / 2) + 0.001
            assert abs(float(level.alpha[i, j]) / (math.cos(angle) * d) - 1) < 1e-13
            assert abs(float(level.sigma[i, j]) / math.sin(angle) - 1) < 1e-13


def test_heat_is_a_gaussian_blur():
    # The Green's function of the heat equation after tau is a Gaussian of variance 2 tau = blur^2; far from the border
    # of a fine grid, a point becomes that Gaussian (to the tail of its spectrum beyond the grid, e^{-(pi 3)^2 / 2}).
    process = ud.InverseHeat((41, 41), blur_max=5.0)
    level = process.level(0.8)
    blur = float(process.blur(torch.tensor(0.8)))
    point = torch.zeros(1, 41, 41, dtype=F64)
    point[0, 20, 20] = 1
    image = process.basis.inverse(level.alpha * process.basis.forward(point))[0]
    x = torch.arange(41, dtype=F64) - 20
    gauss = torch.exp(-(x**2) / (2 * blur**2)) / (blur * math.sqrt(2 * math.pi))
    images = gauss + torch.exp(-((x - 41) ** 2) / (2 * blur**2)) / (blur * math.sqrt(2 * math.pi))
    images = images + torch.exp(-((x + 41) ** 2) / (2 * blur**2)) / (blur * math.sqrt(2 * math.pi))
    assert torch.allclose(image, torch.outer(images, images), rtol=0, atol=1e-9)
    assert abs(float(process.blur(torch.tensor(1 / 200, dtype=F64))) - 0.5) < 1e-12  # the first level
    assert float(level.sigma.max()) == float(level.sigma.min()) == pytest.approx(0.02)


# ---------------------------------------------------------------------------------------------- what is measured


def test_the_power_is_measured_in_one_pass():
    x = digits()
    calls = []

    def batches():
        for batch in x.split(500):
            calls.append(len(batch))
            yield batch

    process = ud.RenormalizedHeat((8, 8), 1.5).fit(batches())
    assert calls == [500, 500, 500]
    expected = ud.DCT((8, 8)).forward(x).square().mean((0, 1))
    torch.testing.assert_close(process.power(), expected, rtol=1e-12, atol=1e-14)
    # R is the gradient energy of the images themselves, whatever the way to it (Parseval).
    assert process.energy == pytest.approx(float((ud.DCT((8, 8)).eigenvalues() * expected).sum()), rel=1e-12)
    with pytest.raises(ParameterError, match="at least one sample"):
        ud.RenormalizedHeat((8, 8)).fit([])


@pytest.mark.parametrize(
    "process", [measured(), ud.Blurring((8, 8)).fit([digits()]), ud.InverseHeat((8, 8), 3.0).fit([digits()])]
)
def test_what_is_measured_is_part_of_the_value(process):
    bare = dataclasses.replace(process)
    assert process != bare
    assert bare.measured() == {}
    for twin in (copy.copy(process), copy.deepcopy(process), bare.with_measured(process.measured())):
        assert twin == process
        assert hash(twin) == hash(process)
        assert torch.equal(twin.power(), process.power())
    assert process != bare.with_measured({"power": process.power() * 2})
    assert repr(process) == repr(bare)


def test_processes_that_measure_nothing_read_nothing():
    def batches():
        raise AssertionError("read")
        yield

    for process in (ud.DDPM(), ud.VPSDE()):
        assert process.fit(batches()) is process
        assert process.measured() == {}


# ---------------------------------------------------------------------------------------------- the prior of Heat


def test_heats_prior_is_a_blurred_image_with_noise():
    process = ud.InverseHeat((8, 8), 3.0).fit([digits()])
    assert isinstance(process, ud.InverseHeat)
    level = process.level(1.0)
    blurred = (level.alpha * process.basis.forward(digits())).flatten(1)
    count = 1500
    u = process.start(ud.Seeded(range(count)), torch.empty(count, 1, 8, 8, dtype=F64)).flatten(1)
    distance = torch.cdist(u, blurred)
    nearest = distance.min(1).values
    # |noise|^2 is sigma^2 chi^2 of 64 degrees: mean 64, standard deviation sqrt(128); five of them, over all draws. The
    # nearest image is at least as near. Modes under a thousandth of the noise were dropped.
    assert (nearest**2 < 0.02**2 * (64 + 7 * math.sqrt(128))).all()
    # Every image is drawn: the number of different ones among n of n is n (1 - 1/e), +- 5 sqrt(n) 0.3.
    chosen = distance.argmin(1).unique()
    assert abs(len(chosen) - count * (1 - 1 / math.e)) < 5 * 0.3 * math.sqrt(count) + 0.02 * count
    # Sample i depends on its own seed alone.
    alone = process.start(ud.Seeded([7]), torch.empty(1, 1, 8, 8, dtype=F64)).flatten(1)
    assert torch.equal(alone[0], u[7])


def test_heats_prior_density_is_that_of_its_draws():
    # A mixture of three images: log density against the sum written out.
    x = digits()[:3]
    process = ud.InverseHeat((8, 8), 3.0).fit([x])
    u = process.start(ud.Seeded(range(4)), torch.empty(4, 1, 8, 8, dtype=F64))
    means = (process.level(1.0).alpha * process.basis.forward(x)).float().double() * process._remaining
    normal = torch.distributions.Normal(means[None], 0.02)
    expected = normal.log_prob(u[:, None]).sum((2, 3, 4)).logsumexp(1) - math.log(3)
    torch.testing.assert_close(process.prior_log_density(u), expected, rtol=1e-9, atol=1e-9)
    # Not fitted: a Gaussian of the same power.
    bare = ud.InverseHeat((8, 8), 3.0)
    scale = (bare.level(1.0).alpha ** 2 * bare.power() + 0.02**2).sqrt()
    expected = torch.distributions.Normal(0.0, scale).log_prob(u).sum((1, 2, 3))
    torch.testing.assert_close(bare.prior_log_density(u), expected, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- what is refused


@each([HEATS[0], OTHERS[1]])
def test_noise_is_not_predicted_where_modes_are_erased(process):
    for refused in (ud.Eps(), ud.Score(), ud.Velocity()):
        with pytest.raises(ParameterError, match=rf"(?s){type(refused).__name__} cannot be converted.*Use X0, V"):
            refused.check(process)
    for sound in (ud.X0(), ud.V(), ud.Preconditioned()):
        sound.check(process)


def test_a_floor_makes_noise_convertible():
    for process in (ud.Blurring((28, 28)), ud.RenormalizedHeat((28, 28), 20.0, floor=1e-3)):
        ud.Eps().check(process)


@pytest.mark.parametrize("grid", [ud.Tapered(5), ud.LogSNR(5), ud.Karras(5)])
def test_grids_of_one_snr_are_refused(grid):
    with pytest.raises(ParameterError, match=r"needs one SNR for all modes; .* has 784\. Use ArcLength"):
        grid.times(HEATS[0])


def test_one_time_for_one_snr_is_refused():
    with pytest.raises(ParameterError, match=r"(?s)one SNR for all modes.* has 784"):
        HEATS[0].time_at(torch.tensor(0.0))
    heat = ud.GaussianMixture(HEATS[0], torch.zeros(1, 28, 28), 1.0)
    with pytest.raises(ParameterError, match=r"modes of .* differ in log SNR"):
        ud.Rescheduled(heat, ud.RenormalizedHeat((28, 28), 3.0))
    with pytest.raises(ParameterError, match="a different basis"):
        ud.Rescheduled(ud.GaussianMixture(ud.VPSDE(), torch.zeros(1, 28, 28), 1.0), HEATS[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ud.RenormalizedHeat((1, 8)),
        lambda: ud.RenormalizedHeat(()),
        lambda: ud.RenormalizedHeat((8, 8), -1.0),
        lambda: ud.RenormalizedHeat((8, 8), floor=1.0),
        lambda: ud.RenormalizedHeat((8, 8), noise="pink"),
        lambda: ud.RenormalizedHeat((8, 8), base=ud.Blurring((8, 8))),
        lambda: ud.Blurring((8, 8), base=ud.Blurring((8, 8))),
        lambda: ud.Blurring((8, 8), math.nan),
        lambda: ud.RenormalizedHeat((8, 8), base=ud.FlowMatching()),
        lambda: ud.RenormalizedHeat((8, 8)).fit([torch.zeros(3, 1, 8, 8)]),
        lambda: ud.RenormalizedHeat((8, 8)).fit([torch.full((3, 1, 8, 8), 0.3)]),
        lambda: ud.RenormalizedHeat((8, 8)).fit([torch.full((3, 1, 8, 8), math.nan)]),
        lambda: ud.RenormalizedHeat((8, 8)).with_measured({}),
        lambda: ud.RenormalizedHeat((8, 8)).with_measured({"power": torch.ones(9, 8)}),
        lambda: ud.RenormalizedHeat((8, 8)).with_measured({"power": -torch.ones(8, 8)}),
        lambda: ud.InverseHeat((8, 8), 0.4),
        lambda: ud.InverseHeat((8, 8), noise_scale=0.0),
        lambda: ud.DCT(()),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ParameterError):
        make()


# ---------------------------------------------------------------------------------------------- on Gaussian data


def gaussian(process: Process) -> ud.GaussianMixture:
    """Data with exactly the power that the process knows."""
    size = math.prod(process.basis.shape)
    modes = torch.eye(size, dtype=F64).reshape(size, *process.basis.shape)
    columns = process.basis.inverse(modes * process.power().sqrt()[None]).reshape(size, size)
    return ud.GaussianMixture(process, torch.zeros(1, *process.basis.shape, dtype=F64), columns.T @ columns)


def run_of(solver: ud.Solver, grid: ud.Grid, process: Process) -> tuple[torch.Tensor, torch.Tensor]:
    """The states at t_min and at the end, (*modes), of a run from noise 1 in each mode: modes do not mix."""
    model = gaussian(process)
    start = started(process, torch.ones(1, *process.basis.shape, dtype=F64))
    *_, last, end = solver.trajectory(model, start, grid.times(process), torch.zeros_like)
    return last.u[0], end.u[0]


def energy_error(solver: ud.Solver, grid: ud.Grid, process: Process) -> float:
    """Relative error of the gradient energy of what is drawn."""
    weight = process.basis.eigenvalues()
    return abs(float((weight * run_of(solver, grid, process)[1] ** 2).sum()) / process.energy - 1)


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("solver", [ud.DDIM(), ud.DPMSolver(1), ud.DPMSolver(2)], ids=repr)
def test_samplers_keep_their_order(solver):
    # On steps equal in sqrt(t). ArcLength takes a first step of the lowest modes that hardly shrinks with N (slopes of
    # 1.7 to 2.0 for DPMSolver(2) up to N = 800), and is better at any N one would use.
    process = ud.RenormalizedHeat((28, 28), 20.0)
    first, last = process.level(1.0), process.level(process.t_min)
    power, weight = process.power(), process.basis.eigenvalues()
    # Along the flow of Gaussian data u stays in proportion to the standard deviation of the state.
    spread = [(level.alpha**2 * power + level.sigma**2).sqrt() for level in (first, last)]
    truth = spread[1] / spread[0] * first.sigma
    errors = []
    for steps in (200, 400, 800):
        found, _ = run_of(solver, ud.Quadratic(steps), process)
        errors.append(float((weight * (found - truth) ** 2).sum() / process.energy) ** 0.5)
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert abs(slopes[-1] - solver.convergence) < 0.15, (slopes, errors)


@pytest.mark.slow  # many evaluations
def test_fifty_steps_are_enough():
    process = ud.RenormalizedHeat((28, 28), 20.0)
    for solver in (ud.DPMSolver(2), ud.ExponentialAdams()):
        assert energy_error(solver, ud.ArcLength(50), process) < 0.02
    assert energy_error(ud.ExponentialAdams(), ud.ArcLength(20), process) < 0.02
    # Steps equal in t miss the bursts in which modes turn from noise to data.
    two = ud.DPMSolver(2)
    assert energy_error(two, ud.Uniform(50), process) > 5 * energy_error(two, ud.ArcLength(50), process)


@pytest.mark.slow  # 2 s
@pytest.mark.cases(1)
@pytest.mark.parametrize("blur", [20.0, 128.0])
def test_float32_samples_are_finite(blur):
    process = ud.RenormalizedHeat((32, 32), blur)
    model = ud.GaussianMixture(process, torch.zeros(1, 1, 32, 32), 0.3)
    solvers = (ud.DDIM(), ud.Ancestral(), ud.DPMSolver(3), ud.DPMSolver(2, 1.0), ud.UniPC(3), ud.ExponentialAdams())
    for solver, steps in itertools.product(solvers, (2, 3, 20)):
        x = ud.sample(model, solver, ud.ArcLength(steps), seeds=3).x
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        assert x.abs().max() < 10
        # Where a device has no float64, coefficients and states are float32 all the way.
        levels = [in_float32(level) for level in process.levels_at(ud.ArcLength(steps).times(process)[:-1])]
        noise = ud.Seeded([3])
        u = process.start(noise, torch.empty(1, 1, 32, 32))
        *_, last = solver.states(model, u, levels, noise)
        assert last.dtype == torch.float32
        assert process.basis.inverse(last).abs().max() < 10
    assert ud.sample(model, seeds=2).x.isfinite().all()  # solver and grid by default


def in_float32(level):
    return level.map(torch.Tensor.float)


def test_ancestral_has_the_datas_spectrum():
    # The exact second moment of each mode, by following each draw of noise: modes do not mix, so all modes at once.
    process = measured(blur_max=1.5)
    model = gaussian(process)
    times = ud.ArcLength(200).times(process)
    u = torch.zeros(len(times), 8, 8, dtype=F64)
    u[0] = started(process, torch.ones(8, 8, dtype=F64))
    draws = iter(range(1, len(times)))

    def noise(like):
        z = torch.zeros_like(like)
        z[next(draws)] = 1
        return z

    *_, last = ud.Ancestral().trajectory(model, u, times, noise)
    found, power = last.u.square().sum(0), process.power()
    shares = process.basis.eigenvalues() * power / process.energy
    # Of order 1 (0.98 measured): 0.05 at 200 steps, in the modes that carry the gradient.
    assert ((found / power - 1).abs() * shares).sum() < 0.1


@pytest.mark.slow  # 2 s: an adaptive flow of 784 modes
def test_likelihood_of_gaussian_data():
    # The flow is linear: u_1 = (spread at 1 / spread at t_min) u. What is reported is the density of data blurred by
    # sigma / alpha at t_min, but for the prior, which leaves out the e^-10 that is left of the data at t = 1.
    process = ud.RenormalizedHeat((6,), 0.6)
    model = gaussian(process)
    generator = torch.Generator().manual_seed(0)
    x = model.draw(torch.randn(3, 6, generator=generator, dtype=F64), torch.rand(3, generator=generator))
    found = ud.log_likelihood(model, x, ud.ExactTrace(), rtol=1e-8, atol=1e-8)
    first, last, power = process.level(1.0), process.level(process.t_min), process.power()
    u = process.basis.forward(x)
    spread = (last.alpha**2 * power + last.sigma**2).sqrt() / last.alpha
    true = torch.distributions.Normal(0.0, spread).log_prob(u).sum(1)
    full = (first.alpha**2 * power + first.sigma**2).sqrt()
    end = u * full / spread
    prior = torch.distributions.Normal(0.0, first.sigma).log_prob(end) - torch.distributions.Normal(0.0, full).log_prob(
        end
    )
    torch.testing.assert_close(found.log_prob, true + prior.sum(1), rtol=0, atol=1e-5)


@pytest.mark.slow  # 2 s: bounds of many steps
def test_the_variational_bound_of_gaussian_data():
    # As on scalar processes: with an exact model the bound lies below the likelihood and closes at order 1.
    process = ud.RenormalizedHeat((6,), 0.6)
    model = gaussian(process)
    noise = torch.randn(4, 6, dtype=F64, generator=torch.Generator().manual_seed(3))
    x = model.draw(noise, torch.zeros(4))
    spread = process.power()
    u = process.basis.forward(x)
    true = torch.distributions.Normal(0.0, spread.sqrt()).log_prob(u).sum(1)
    gaps = []
    for steps in (50, 200):
        seeds = [range(k, k + 4) for k in range(0, 80, 4)]
        bounds = [ud.variational_bound(model, x, ud.ArcLength(steps), seeds=each).log_prob for each in seeds]
        gaps.append(float((true - torch.stack(bounds).mean(0)).mean()))
    assert 0 < gaps[1] < gaps[0]
    pink = gaussian(ud.RenormalizedHeat((6,), 0.6, noise=ud.GaussianFreeField()))
    with pytest.raises(ParameterError, match="its noise differs from mode to mode"):
        ud.variational_bound(pink, x, ud.ArcLength(5))


@pytest.mark.slow  # many evaluations
def test_encoding_and_decoding():
    process = ud.RenormalizedHeat((6,), 0.6)
    model = gaussian(process)
    x = model.draw(torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(1)), torch.rand(3))
    latent = ud.encode(model, x, ud.ProbabilityFlow(rtol=1e-8, atol=1e-8))
    back = ud.decode(model, latent, ud.ProbabilityFlow(rtol=1e-8, atol=1e-8))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


@pytest.mark.slow  # 3 s: the reference flow is halved until it stands still
def test_solvers_are_compared_on_it():
    # The reference is the default solver, halved until it stands still: held against the flow of Gaussian data.
    process = ud.RenormalizedHeat((6,), 2.0)
    model = gaussian(process)
    found = ud.compare(model, ["ddim", "dpm:2", "exponential"], [10, 40], seeds=60, tolerance=1e-6)
    assert found.rows[0].grid.startswith("ArcLength")
    for label in {row.label for row in found.rows}:
        few, many = (row.rms for row in found.rows if row.label == label)
        assert many < few / 2
    first, last = process.level(1.0), process.level(process.t_min)
    start = started(process, ud.Seeded(range(60))(torch.empty(60, 6, dtype=F64)))
    spread = [(level.alpha**2 * process.power() + level.sigma**2).sqrt() for level in (first, last)]
    u = start * spread[1] / spread[0]
    truth = process.basis.inverse(model(u, last).x0)  # at t_min, and denoised once
    ddim = ud.sample(model, ud.DDIM(), ud.ArcLength(10), seeds=60, dtype=F64).x
    rms = float((ddim - truth).square().mean().sqrt())
    # The reference itself ends with a polynomial to q = 0 in place of the denoise: e^-11 away, relative to the data.
    assert found.rows[0].rms == pytest.approx(rms, rel=0.02)
