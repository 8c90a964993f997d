"""The processes, against the formulas of the papers written out in plain Python.

u = 2^-53 is the unit roundoff of float64. A product of T factors carries a relative error of at most about 2 T u, and
the library's sum of T logarithms one of T u |log alpha-bar|: with T = 1000 and |log alpha-bar| <= 20 both stay below
5e-12; because roundings do not all have one sign the tests ask for 1e-12.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from mixtures import started

from unidiff import (
    DDPM,
    EDM,
    NCSN,
    VESDE,
    VPSDE,
    Cosine,
    CosineVP,
    FlowMatching,
    Karras,
    Linear,
    Power,
    ScaledLinear,
    Sigmoid,
    SubVPSDE,
    Tapered,
    Uniform,
    ZeroTerminalSNR,
)
from unidiff.errors import ParameterError
from unidiff.process.level import axpby, fresh_noise_fraction

EPS = 2.0**-53

VP = {
    "linear": DDPM(),
    "higham": DDPM(T=500),
    "cosine": DDPM(schedule=Cosine()),
    "scaled linear": DDPM(schedule=ScaledLinear()),
    "zero terminal": DDPM(T=100, schedule=ZeroTerminalSNR()),
    "short": DDPM(T=2),
}
VE = {"ncsn": NCSN(), "ncsn, wide": NCSN(0.01, 50.0, 232), "ncsn, two levels": NCSN(0.1, 2.0, 2)}
TABLES = VP | VE
CONTINUOUS = {"vp": VPSDE(), "sub-vp": SubVPSDE(), "ve": VESDE(), "edm": EDM(), "flow": FlowMatching()}
ALL = TABLES | CONTINUOUS  # the formulas of the continuous ones are in test_continuous.py


def cases(processes):
    return pytest.mark.parametrize("process", processes.values(), ids=processes.keys())


def running_products(betas: list[float]) -> list[float]:
    """alpha-bar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, section 2; Higham et al., eq. 7)."""
    products, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return products


def linear(T: int, first: float = 1e-4, last: float = 0.02) -> list[float]:
    return [first + (last - first) * i / (T - 1) for i in range(T)]


def assert_close(actual, expected, rel=0.0, abs_=0.0):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64), expected, rtol=rel, atol=abs_)


# ---- tables of DDPM


@pytest.mark.parametrize("T", [1000, 500], ids=["Ho et al.", "Higham et al."])
def test_linear_table_is_the_product_of_its_factors(T):
    expected = running_products(linear(T))
    process = DDPM(T=T)
    assert_close(process.schedule.betas(T), linear(T), rel=4 * EPS)
    assert_close(process.schedule.log_alpha_bar(T).exp(), expected, rel=1e-12)
    times = torch.arange(1, T + 1, dtype=torch.float64) / T
    assert torch.equal(process.native_times(), times)
    assert_close(process.alpha(times) ** 2, expected, rel=1e-12)
    # sigma^2 = 1 - alpha-bar: the subtraction here loses u absolutely, u / sigma^2 = 1e-12 relatively at 1e-4.
    assert_close(process.sigma(times) ** 2, [1 - a for a in expected], rel=4e-12)


def test_linear_table_forgets_the_data_as_much_as_ho_et_al_say():
    # Ho et al. 2020, section 4: KL(q(x_T | x_0) || N(0, I)) is about 1e-5 bits per dimension. For x_0 uniform on
    # [-1, 1], E x_0^2 = 1/3 and KL = (alpha-bar x_0^2 - alpha-bar - log(1 - alpha-bar)) / 2 nats. "About": a factor 2.
    alpha_bar = float(DDPM().level(1.0).alpha) ** 2
    bits = 0.5 * (alpha_bar / 3 - alpha_bar - math.log1p(-alpha_bar)) / math.log(2)
    assert 0.5e-5 < bits < 2e-5


@pytest.mark.parametrize("T", [1000, 50])
def test_cosine_table(T):
    # Nichol & Dhariwal 2021, eq. 17: alpha-bar_t = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), s = 0.008,
    # and beta_t = 1 - alpha-bar_t / alpha-bar_{t-1} is not allowed above 0.999, which touches the last entry alone.
    f = [math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(T + 1)]
    schedule = Cosine()
    betas = schedule.betas(T)
    for i in range(1, T):
        # The cosine of an angle near pi / 2 is known to 2 u absolutely, so its square to 4 u / cos relatively; twice.
        assert betas[i - 1].item() == pytest.approx(1 - f[i] / f[i - 1], rel=0, abs=8 * EPS / math.sqrt(f[i]))
    assert betas[-1] == 0.999
    alpha_bar = schedule.log_alpha_bar(T).exp()
    assert_close(alpha_bar[:-1], [f[i] / f[0] for i in range(1, T)], rel=1e-12)
    assert_close(alpha_bar[-1], f[T - 1] / f[0] * 0.001, rel=1e-12)


@pytest.mark.parametrize(("start", "end", "temperature"), [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.3), (-18.0, 2.0, 1.0)])
def test_sigmoid_table(start, end, temperature):
    # Jabri et al. 2023: alpha-bar = (F(end) - F(x)) / (F(end) - F(start)), x = start + t / T (end - start), F(x) =
    # 1 / (1 + exp(-x / tau)); 0 at the end, where beta = 1 is not allowed above 0.999.
    def f(x):
        return 1 / (1 + math.exp(-x / temperature))

    T, schedule = 50, Sigmoid(start, end, temperature)
    curve = [(f(end) - f(start + i / T * (end - start))) / (f(end) - f(start)) for i in range(T + 1)]
    alpha_bar = schedule.log_alpha_bar(T).exp()
    for i in range(1, T):  # F rounds to u; a factor of 1 / (F(end) - F(start)), at most 2.2 here
        assert alpha_bar[i - 1].item() == pytest.approx(curve[i], rel=1e-12, abs=8 * EPS)
    assert schedule.betas(T)[-1] == 0.999
    assert_close(alpha_bar[-1], alpha_bar[-2] * 0.001, rel=1e-12)
    for wrong in ({"end": -3.0}, {"temperature": 0.1}, {"beta_max": 1.0}, {"start": -math.inf}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            Sigmoid(**wrong)


def test_scaled_linear_table():
    # Rombach et al. 2022: sqrt(beta) runs linearly from sqrt(0.00085) to sqrt(0.012).
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    betas = [(first + (last - first) * i / 999) ** 2 for i in range(1000)]
    schedule = ScaledLinear()
    assert_close(schedule.betas(1000), betas, rel=8 * EPS)
    assert_close(schedule.log_alpha_bar(1000).exp(), running_products(betas), rel=1e-12)


@pytest.mark.parametrize(("inner", "T"), [(Linear(), 1000), (ScaledLinear(), 1000), (Cosine(), 100)], ids=str)
def test_zero_terminal_snr_is_algorithm_1(inner, T):
    # Lin et al. 2024, algorithm 1, in plain Python.
    root = [math.sqrt(a) for a in running_products(inner.betas(T).tolist())]
    first, last = root[0], root[-1]
    expected = [((r - last) * first / (first - last)) ** 2 for r in root]
    actual = ZeroTerminalSNR(inner).log_alpha_bar(T).exp()
    assert actual[-1] == 0.0
    # alpha-bar_1 is kept: 1 - beta_1 rounds at u, and beta_1 = 1 - alpha-bar_1 at u again.
    assert_close(actual[0], first**2, rel=4 * EPS)
    # The difference r - last loses u / r relatively; the smallest r but the last is about 1e-3 of 1.
    assert_close(actual, expected, rel=1e-11)
    level = DDPM(T, ZeroTerminalSNR(inner)).level(1.0)
    assert (level.alpha, level.sigma, level.log_snr) == (0.0, 1.0, -math.inf)


@pytest.mark.parametrize("schedule", [Linear(), ScaledLinear(), Cosine(), ZeroTerminalSNR()], ids=str)
def test_table_is_the_forward_chain(schedule):
    # x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) z (Higham et al., eq. 4): scales multiply, variances add.
    T = 200
    process, betas = DDPM(T, schedule), schedule.betas(T).tolist()
    alpha, variance = 1.0, 0.0
    for beta, level in zip(betas, process.levels_at(process.native_times())):
        alpha, variance = math.sqrt(1 - beta) * alpha, (1 - beta) * variance + beta
        assert level.alpha == pytest.approx(alpha, rel=1e-12, abs=0)
        assert level.sigma**2 == pytest.approx(variance, rel=1e-11, abs=0)  # 1 - beta_1 forgets u / beta_1 of beta_1


CURVES = VP | {
    "zero terminal, cosine": DDPM(50, ZeroTerminalSNR(Cosine())),
    "zero terminal, short": DDPM(3, ZeroTerminalSNR()),
}


@cases(CURVES)
def test_the_curve_passes_through_the_table(process):
    # A position i in the table is known to i u, and log SNR there to i u times its slope per entry.
    times, table = process.native_times(), process.schedule.log_alpha_bar(process.T)
    expected = table - torch.log(-torch.expm1(table))
    slope = expected.diff().abs()
    slope = slope[slope.isfinite()].max() if slope.isfinite().any() else 2.0
    assert_close(process.log_snr(times), expected, rel=8 * EPS, abs_=2 * process.T * EPS * float(slope))


def slope_of_log_snr(process, t: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(process.log_snr, (t,), (torch.ones_like(t),))[1]


@cases(CURVES)
def test_the_curve_has_one_slope_at_each_entry(process):
    # A cubic with rise r and end slopes m, n per entry has a second derivative of at most 6 |r| + 4 |m| + 2 |n|; slopes
    # are at most 3 times a rise, so it is below 24 times the larger rise. The slopes at 1e-9 of an entry on both sides
    # differ by at most 2e-9 times that; neighbouring rises have ratios of up to 4. Positions are known to T u << 1e-9.
    times, h = process.native_times()[:-1], 1e-9 / process.T
    left, right = slope_of_log_snr(process, times - h), slope_of_log_snr(process, times + h)
    assert_close(left, right, rel=2e-9 * 24 * 4)


@cases(CURVES)
def test_the_curve_falls_in_every_interval(process):
    # Slopes at 20 places in each interval; the end of a zero terminal SNR, where they are infinite, is left out.
    t = torch.linspace(0, 1, 20 * process.T, dtype=torch.float64)[:-1]
    assert (slope_of_log_snr(process, t) < 0).all()


def test_the_curve_falls_where_a_table_ends_abruptly():
    # The way to pure noise starts with slope -2; a cubic that falls by 0.1 cannot reach it and stay monotone.
    class Abrupt(Linear):
        def log_alpha_bar(self, T):
            return torch.tensor([-0.5, -0.9, -0.95, -math.inf], dtype=torch.float64)

    process = DDPM(4, Abrupt())
    assert (slope_of_log_snr(process, torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]) < 0).all()


def test_before_the_first_entry_the_log_snr_is_linear():
    # With the slope of the first interval: at t = 0 it is one step of the table further up.
    process = DDPM(T=10)
    at = process.log_snr(process.native_times())
    assert_close(process.log_snr(torch.tensor(0.0)), 2 * at[0] - at[1], rel=1e-13)
    assert_close(process.log_snr(torch.tensor(0.05, dtype=torch.float64)), 1.5 * at[0] - 0.5 * at[1], rel=1e-13)


def test_towards_pure_noise_alpha_over_sigma_is_linear():
    process = DDPM(10, ZeroTerminalSNR())
    at = [process.level(t) for t in (0.9, 0.925, 0.95, 0.975)]
    ratio = [level.alpha / level.sigma for level in at]
    assert_close(
        [r / ratio[0] for r in ratio], [1.0, 0.75, 0.5, 0.25], rel=1e-12
    )  # a position in the table is 10 u exact


# ---- curves of all processes


@cases(VP)
def test_variance_is_preserved(process):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    # Two exponentials, two squares and a sum, each within a few u of a number below 1.
    assert_close(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones(1001), abs_=8 * EPS)


@cases(VE)
def test_levels_of_ncsn_are_geometric(process):
    # Song & Ermon 2019, section 3.2: sigma_{i+1} / sigma_i is one number, here > 1 because t grows with the noise.
    ratio = (process.sigma_max / process.sigma_min) ** (1 / (process.levels - 1))
    expected = [process.sigma_min * ratio**i for i in range(process.levels)]
    levels = process.levels_at(process.native_times())
    assert_close([level.sigma for level in levels], expected, rel=process.levels * 8 * EPS)
    assert all(level.alpha == 1.0 for level in levels)
    assert process.t_min == process.native_times()[0]


@cases(ALL)
def test_log_snr_falls_strictly_and_is_that_of_the_scales(process):
    t = torch.linspace(0, 1, 5001, dtype=torch.float64)
    log_snr = process.log_snr(t)
    assert (log_snr[1:] < log_snr[:-1]).all()
    finite = log_snr.isfinite()
    # logs of two numbers: absolute error of a few u times the size of the logs.
    assert_close(2 * (process.alpha(t) / process.sigma(t)).log()[finite], log_snr[finite], abs_=64 * EPS * 20)


# ---- rates of the forward SDE


def inside(process) -> torch.Tensor:
    """Times in the middle of the intervals of the table, or of 50 intervals."""
    times = process.native_times()
    if times is None:
        times = torch.linspace(process.t_min, 1, 51, dtype=torch.float64)
    return (times[1:] + times[:-1]) / 2


@cases(VE)
def test_rates_of_ncsn(process):
    # alpha = 1: f = 0, g^2 = d sigma^2 / dt = 2 sigma^2 d log sigma / dt (Song et al. 2021, eq. 30);
    # log sigma is linear in t with slope log(sigma_max / sigma_min) L / (L - 1).
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    f, g2 = process.rates(t)
    slope = math.log(process.sigma_max / process.sigma_min) * process.levels / (process.levels - 1)
    assert torch.equal(f, torch.zeros_like(t))
    assert_close(g2, 2 * slope * process.sigma(t) ** 2, rel=1e-13)


@cases(VP)
def test_rates_of_a_variance_preserving_process(process):
    # alpha^2 + sigma^2 = 1 gives d sigma^2 / dt = -2 alpha^2 f, so g^2 = -2 f alpha^2 - 2 f sigma^2 = -2 f
    # (Song et al. 2021, eq. 29); and f = (1/2) sigma^2 d log SNR / dt from alpha^2 = sigmoid(log SNR).
    t = inside(process)
    f, g2 = process.rates(t)
    # g^2 is a sum of terms of size |f| / sigma^2 times sigma^2: relative error of a few u.
    assert_close(g2, -2 * f, rel=1e-13)
    assert (g2 > 0).all()
    # In the middle of an interval a cubic with end slopes m and n has the slope 3/2 rise - (m + n) / 4; m and n are the
    # harmonic means of the rises on both sides (Fritsch & Butland 1984), and the rise itself at the ends of the table.
    rise = process.log_snr(process.native_times()).diff()
    if rise[-1].isinf():  # the way to pure noise is not a cubic, and the one before it ends with its slope
        t, f, rise = t[:-2], f[:-2], rise[:-1]
    ends = torch.cat([rise[:1], 2 * rise[1:] * rise[:-1] / (rise[1:] + rise[:-1]), rise[-1:]])
    slope = (1.5 * rise - (ends[1:] + ends[:-1]) / 4)[: len(t)] * process.T
    # The table: numbers of size 10 over their difference of 0.02 lose 500 u, positions of up to T lose T u.
    assert_close(f, 0.5 * process.sigma(t) ** 2 * slope, rel=2000 * 2 * EPS)


@cases(ALL)
def test_rates_against_finite_differences(process):
    # Central differences with h: error (h L)^2 / 6 relatively, L <= 1200 the slope of the log-SNR, and u |log| / h
    # absolutely with |log| <= 10: h = 1e-7 gives 2e-9 and 1e-8. The slopes themselves are about 0.05 or more.
    t, h = inside(process), 1e-7

    def slope(function):
        return (function(t + h) - function(t - h)) / (2 * h)

    f, g2 = process.rates(t)
    assert_close(f, slope(process.log_alpha), rel=1e-7, abs_=4e-8)
    expected = slope(lambda t: process.sigma(t) ** 2) - 2 * f * process.sigma(t) ** 2
    assert_close(g2, expected, rel=1e-7, abs_=4e-8)


@cases(ALL)
def test_rates_work_without_gradients_and_in_float32(process):
    t = inside(process)
    expected = process.rates(t)
    with torch.no_grad():
        actual = process.rates(t)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
    assert all(rate.shape == (2, 3) for rate in process.rates(torch.full((2, 3), 0.5)))


@cases(ALL)
@pytest.mark.parametrize("ask", ["level", "rates"])
def test_a_process_can_be_copied_and_pickled_after_its_first_derivative(process, ask):
    fresh = dataclasses.replace(process)
    fresh.level(0.5) if ask == "level" else fresh.rates(torch.tensor(0.5))
    for twin in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert twin == process
        assert twin.level(0.3) == process.level(0.3)


# ---- levels

FIELDS = ("time", "alpha", "sigma", "log_snr", "alpha_rate", "sigma_rate")


@cases(ALL)
def test_one_level_many_levels_and_a_batch_agree(process):
    times = [1.0, 0.7312, 0.5, process.t_min]
    many = process.levels_at(times)
    assert many == [process.level(t) for t in times]
    assert many == [process.level(torch.tensor(t, dtype=torch.float64)) for t in times]
    assert many == process.levels_at(torch.tensor(times, dtype=torch.float64))
    batch = process.level(torch.tensor(times, dtype=torch.float64), torch.zeros(4, 3, 2, 2, dtype=torch.float64))
    for name in FIELDS:
        value = getattr(batch, name)
        assert value.shape == (4, 1, 1, 1)
        assert value.flatten().tolist() == [getattr(level, name) for level in many]


@cases(ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4)], ids=str)
def test_a_batch_is_computed_in_float64_and_cast_once(process, dtype, shape):
    t = torch.tensor([0.3, 0.6, 1.0])  # float32, as a user may pass it
    level = process.level(t, torch.zeros(shape, dtype=dtype))
    exact = process.levels_at(t.double())
    for name in FIELDS:
        value = getattr(level, name)
        assert value.dtype == dtype
        assert value.shape == (3, *[1] * (len(shape) - 1))
        expected = torch.tensor([getattr(e, name) for e in exact], dtype=torch.float64)
        assert torch.equal(value.flatten(), expected.to(dtype))


def test_a_batch_of_times_needs_its_state():
    for like in (None, torch.zeros(3, 2)):
        with pytest.raises(ValueError, match="t must be one time, or one for each sample of"):
            DDPM().level(torch.tensor([0.1, 0.2]), like)


@cases(ALL)
def test_renewal_is_one_minus_the_ratio_of_snrs(process):
    t, s = process.level(0.8), process.level(0.3)
    assert fresh_noise_fraction(t, s) == pytest.approx(1 - (t.alpha / t.sigma * s.sigma / s.alpha) ** 2, rel=1e-13)


def test_combine_is_a_linear_combination_with_numbers_and_with_tensors():
    x, y = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64)
    for a in (0.0, 1.0, -0.75):
        for b in (0.0, 1.0, 0.3):
            expected = [a * 1 + b * 3, a * 2 + b * 5]
            assert_close(axpby(a, x, b, y), expected, abs_=8 * EPS)
            a_tensor, b_tensor = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
            assert_close(axpby(a_tensor, x, b_tensor, y), expected, abs_=8 * EPS)


@cases(ALL)
def test_time_at_is_the_inverse_of_log_snr(process):
    t = torch.linspace(process.t_min, 1, 301, dtype=torch.float64)
    log_snr = process.log_snr(t)
    # log SNR is known to 16 u times its size (two logarithms and their difference), a position in a table to 4 u in t;
    # both over the slope. Where log SNR is minus infinity the time is 1 exactly.
    slope = torch.func.jvp(process.log_snr, (t,), (torch.ones_like(t),))[1].abs()
    finite = log_snr.isfinite()
    bound = 16 * EPS * ((1 + log_snr.abs()) / slope)[finite] + 8 * EPS
    found = process.time_at(log_snr)
    assert ((found - t).abs()[finite] <= bound).all()
    assert (found[~finite] == 1).all()
    assert torch.equal(process.time_at(log_snr[::3].reshape(1, -1)), found[::3].reshape(1, -1))


@cases(ALL)
def test_time_at_answers_with_the_nearer_end(process):
    first, last = process.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    assert process.time_at(torch.tensor([last - 1, last - 100, -math.inf])).tolist() == [1.0, 1.0, 1.0]
    # Processes without noise at t = 0 have infinite log SNR there: then no finite value is out of range.
    above = [math.inf, first + 1, first + 100] if math.isfinite(first) else [math.inf]
    assert process.time_at(torch.tensor(above)).tolist() == [0.0] * len(above)


# ---- prior, training, perturb


@cases(ALL)
def test_prior_density(process):
    u = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = getattr(process, "sigma_max", 1.0)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), scale)
    # exp(log sigma): an error of u |log sigma| in the exponent, with logs of 10 on the way. The density doubles it.
    assert process.prior_scale() == pytest.approx(scale, rel=20 * EPS)
    assert_close(started(process, u), scale * u, rel=20 * EPS)
    assert_close(process.prior_log_density(u), normal.log_prob(u).sum((1, 2)), rel=1e-13)


@cases(ALL)
def test_perturb_has_the_moments_of_the_process(process):
    # n draws: the mean of u has standard error sigma / sqrt(n), its variance sigma^2 sqrt(2 / n). Five of each.
    n, x0 = 40_000, 0.8
    eps = torch.randn(2, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    level = process.level(torch.tensor([0.4, 0.9]), eps)
    u = process.perturb(torch.full_like(eps, x0), eps, level)
    for row, t in zip(u, torch.tensor([0.4, 0.9]).double().tolist()):
        at = process.level(t)
        assert row.mean().item() == pytest.approx(at.alpha * x0, abs=5 * at.sigma / math.sqrt(n))
        assert row.var().item() == pytest.approx(at.sigma**2, rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize(
    "process",
    [
        VESDE(sigma_min=1.0, sigma_max=1.7e308),
        EDM(sigma_min=1e-30, sigma_max=1.7e308),
        EDM(sigma_min=1e-6, sigma_max=0.5, rho=1e-6),
        VPSDE(beta_min=5e-324, beta_max=1e-30, t_min=1e-300),
        CosineVP(log_snr_min=1e6, log_snr_max=1e300),
        FlowMatching(t_min=5e-324),
        DDPM(T=10, schedule=Linear(beta_min=5e-324, beta_max=1e-6)),
    ],
    ids=repr,
)
def test_scales_that_float32_cannot_hold_are_refused(process):
    for grid in (Uniform(4), Tapered(4)):  # as recipes do before anything else that asks a process
        with pytest.raises(ParameterError, match=r"^process: its scales of data and noise"):
            grid.check(process)


@pytest.mark.parametrize("grid", [Karras(5, 1e-300), Karras(5, 5e-324), Power(5, 1e-30), Tapered(5, 0.0, 1e-300)])
def test_times_that_float64_cannot_tell_apart_are_refused(grid):
    with pytest.raises(ParameterError, match=r"^grid: the 5 times of .* are not different in float64"):
        grid.times(VPSDE())
