"""The continuous processes, against the formulas of the papers written out in plain Python.

u = 2^-53. A scale exp(x) has a relative error of about u (2 + |x|); |x| is at most 12 here, so 64 u covers the scales
and their squares, and 256 u the rates, which are products of a few of them. What is known no better absolutely than
as a difference of numbers of size 1 is said where it is tested.
"""

from __future__ import annotations

import math

import pytest
import torch

from unidiff import DDPM, EDM, NCSN, VESDE, VPSDE, FlowMatching, Linear, SubVPSDE, Uniform, ZeroTerminalSNR
from unidiff.errors import ParameterError

EPS = 2.0**-53
T = [1e-3, 0.013, 0.2, 0.5, 0.77, 0.999, 1.0]


def check(process, t, alpha, sigma, alpha_rate, sigma_rate, f, g2, rel=64 * EPS, lost=0.0):
    """Every coefficient of a level and both rates against given numbers."""
    level = process.level(t)
    actual = (
        level.alpha,
        level.sigma,
        level.alpha_rate,
        level.sigma_rate,
        *process.rates(torch.tensor(t, dtype=torch.float64)),
    )
    for name, a, b in zip(
        ("alpha", "sigma", "alpha'", "sigma'", "f", "g2"), actual, (alpha, sigma, alpha_rate, sigma_rate, f, g2)
    ):
        assert float(a) == pytest.approx(b, rel=4 * rel, abs=lost), name
    if alpha > 0:
        log_snr = 2 * math.log(alpha / sigma)
        assert level.log_snr == pytest.approx(log_snr, rel=0, abs=4 * rel * (1 + abs(log_snr)))


@pytest.mark.parametrize("t", T)
@pytest.mark.parametrize(("low", "high"), [(0.1, 20.0), (0.5, 0.5), (2.0, 7.0)])
def test_vp_is_equations_11_and_33_of_song_et_al(t, low, high):
    beta = low + t * (high - low)
    integral = t * low + t**2 / 2 * (high - low)
    alpha = math.exp(-integral / 2)
    sigma = math.sqrt(-math.expm1(-integral))
    # Song et al. 2021, eq. 11: f = -beta / 2, g^2 = beta. By the chain rule 2 sigma sigma' = beta alpha^2.
    alpha_rate, sigma_rate = -beta / 2 * alpha, beta * alpha**2 / (2 * sigma)
    # The derivative of expm1 is expm1 + 1, which loses u absolutely: u beta of sigma sigma' = beta alpha^2 / 2.
    check(VPSDE(low, high), t, alpha, sigma, alpha_rate, sigma_rate, -beta / 2, beta, lost=EPS * beta / sigma)
    assert VPSDE(low, high).prior_scale() == 1


@pytest.mark.parametrize("t", T)
@pytest.mark.parametrize(("low", "high"), [(0.1, 20.0), (0.5, 0.5), (2.0, 7.0)])
def test_sub_vp_is_equations_12_and_29_of_song_et_al(t, low, high):
    beta = low + t * (high - low)
    integral = t * low + t**2 / 2 * (high - low)
    alpha, sigma = math.exp(-integral / 2), -math.expm1(-integral)
    # Eq. 12: g^2 = beta (1 - exp(-2 integral)), with the drift of VP. sigma = 1 - alpha^2, so sigma' = beta alpha^2.
    g2 = beta * -math.expm1(-2 * integral)
    # The derivative of expm1 loses u absolutely, as in VP: u beta of beta alpha^2.
    drift = -beta / 2
    check(SubVPSDE(low, high), t, alpha, sigma, drift * alpha, beta * alpha**2, drift, g2, lost=2 * EPS * beta)
    assert SubVPSDE(low, high).prior_scale() == 1


def test_sub_vp_has_never_more_noise_than_vp():
    # Song et al. 2021, section 3.4: the variance of sub-VP is bounded by that of VP; here sigma_sub = sigma_vp^2.
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    sub, vp = SubVPSDE().sigma(t), VPSDE().sigma(t)
    assert (sub <= vp).all()
    torch.testing.assert_close(sub, vp**2, rtol=64 * EPS, atol=0)


@pytest.mark.parametrize("t", [1e-5, *T])
@pytest.mark.parametrize(("low", "high"), [(0.01, 50.0), (0.3, 2.0)])
def test_ve_is_equations_9_and_30_of_song_et_al(t, low, high):
    sigma = low * (high / low) ** t
    rate = math.log(high / low)
    # Eq. 30: g = sigma_min (sigma_max / sigma_min)^t sqrt(2 log(sigma_max / sigma_min)).
    check(VESDE(low, high), t, 1.0, sigma, 0.0, sigma * rate, 0.0, 2 * rate * sigma**2)
    assert VESDE(low, high).prior_scale() == pytest.approx(high, rel=64 * EPS)


def test_ve_is_the_limit_of_ncsn():
    # At t = i / L the ladder's log sigma lies (1 - t) log(sigma_max / sigma_min) / (L - 1) below the curve.
    for levels in (10, 1000):
        ncsn, ve = NCSN(0.01, 50.0, levels), VESDE()
        t = ncsn.native_times()
        expected = (1 - t) * math.log(5000) / (levels - 1)
        torch.testing.assert_close(ve.log_sigma(t) - ncsn.log_sigma(t), expected, rtol=0, atol=64 * EPS * 10)


@pytest.mark.parametrize("t", [0.25, *T])
@pytest.mark.parametrize(("high", "rho"), [(80.0, 7.0), (80.0, 1.0), (3.0, 2.5)])
def test_edm_is_a_warped_noise_scale(t, high, rho):
    # Karras et al. 2022, table 1: s(t) = 1 and sigma is their time, so g^2 = 2 sigma sigma' (their eq. 4 with s' = 0).
    sigma, sigma_rate = high * t**rho, high * rho * t ** (rho - 1)
    # t^rho with log t down to -7 times rho = 7.
    process = EDM(sigma_max=high, rho=rho)
    check(process, t, 1.0, sigma, 0.0, sigma_rate, 0.0, 2 * sigma * sigma_rate, rel=128 * EPS)
    assert process.prior_scale() == pytest.approx(high, rel=64 * EPS)


@pytest.mark.parametrize("steps", [2, 18, 79])
@pytest.mark.parametrize("process", [EDM(), EDM(0.02, 10.0, 3.0)], ids=repr)
def test_equal_steps_of_edm_are_the_schedule_of_karras_et_al(process, steps):
    # Karras et al. 2022, eq. 5: sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
    # for i < N, and sigma_N = 0.
    times = Uniform(steps).times(process)
    assert len(times) == steps + 1
    high, low = process.sigma_max ** (1 / process.rho), process.sigma_min ** (1 / process.rho)
    expected = [(high + i / (steps - 1) * (low - high)) ** process.rho for i in range(steps)] + [0.0]
    actual = process.sigma(times)
    # An error of a few u in t is rho u / t relatively, with t >= 0.1.
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=512 * EPS, atol=0)


@pytest.mark.parametrize("t", T)
def test_flow_matching_is_the_straight_path(t):
    # u = (1 - t) x0 + t eps moves with velocity eps - x0: alpha' = -1, sigma' = 1. f = alpha' / alpha = -1 / (1 - t)
    # and g^2 = 2 t - 2 f t^2 = 2 t / (1 - t), infinite at t = 1, where the level still has finite rates.
    level = FlowMatching().level(t)
    assert (level.alpha, level.alpha_rate) == (1 - t, -1.0)
    assert level.sigma == pytest.approx(t, rel=64 * EPS)
    assert level.sigma_rate == pytest.approx(1.0, rel=64 * EPS)
    if t < 1:
        check(FlowMatching(), t, 1 - t, t, -1.0, 1.0, -1 / (1 - t), 2 * t / (1 - t))
    else:
        assert level.log_snr == -math.inf
    assert FlowMatching().prior_scale() == 1


@pytest.mark.parametrize(("sigma_min", "sigma_max", "levels"), [(0.01, 1.0, 10), (0.01, 50.0, 232)])
def test_rates_of_ncsn(sigma_min, sigma_max, levels):
    # Song & Ermon 2019: sigma_i geometric; at t = i / L and between, log sigma has slope log(ratio) L / (L - 1).
    slope = math.log(sigma_max / sigma_min) * levels / (levels - 1)
    for i in (1, 2.5, levels):
        sigma = sigma_min * (sigma_max / sigma_min) ** ((i - 1) / (levels - 1))
        check(NCSN(sigma_min, sigma_max, levels), i / levels, 1.0, sigma, 0.0, slope * sigma, 0.0, 2 * slope * sigma**2)


@pytest.mark.parametrize("length", [4, 100, 1000])
def test_rates_of_a_table_that_ends_in_pure_noise(length):
    # In the last interval alpha / sigma = r (1 - x), x the way through it: at t = 1 alpha' = -r T and, because
    # alpha^2 + sigma^2 = 1, sigma' = -alpha alpha' / sigma = 0.
    process = DDPM(length, ZeroTerminalSNR())
    before, level = process.level((length - 1) / length), process.level(1.0)
    assert (level.alpha, level.sigma, level.sigma_rate) == (0.0, 1.0, 0.0)
    # The entry before is known to length u relatively, from its logarithm.
    assert level.alpha_rate == pytest.approx(-before.alpha / before.sigma * length, rel=1e-11)


def scales_and_rates(process, t):
    """Alpha, sigma and their derivatives at each time, (N, 4)."""
    rows = [(at.alpha, at.sigma, at.alpha_rate, at.sigma_rate) for at in process.levels_at(t)]
    return torch.tensor(rows, dtype=torch.float64)


def test_ddpm_becomes_vp():
    # Song et al. 2021, appendix B: beta_i = beta(i / T) / T. Expanding log(1 - beta_i) and the Riemann sum, log alpha
    # differs from VP's by -(beta(t) - beta(0) + int_0^t beta^2) / (4 T) + O(1 / T^2), so all errors halve when T
    # doubles: order 1, measured within 0.15. Times below 0.05, few entries from the start, are left out.
    t = torch.linspace(0.05, 1, 97, dtype=torch.float64)
    vp = VPSDE()
    level = scales_and_rates(vp, t)
    errors = []
    for length in (2000, 4000):
        schedule = Linear((0.1 + 19.9 / length) / length, 20 / length)
        ddpm = DDPM(length, schedule)
        errors.append((scales_and_rates(ddpm, t) - level).abs())
        beta, integral = 0.1 + 19.9 * t, (0.1**2 * t + 0.1 * 19.9 * t**2 + 19.9**2 * t**3 / 3)
        # The next term is of relative size beta_max / T.
        torch.testing.assert_close(
            ddpm.log_alpha(t) - vp.log_alpha(t),
            -(beta - 0.1 + integral) / (4 * length),
            rtol=20 / length,
            atol=(20 / length) ** 2,
        )
    coarse, fine = (e.amax(0) for e in errors)
    order = torch.log2(coarse / fine)
    assert ((order - 1).abs() < 0.15).all()
    # The rates are those of the limit: alpha' and sigma' of size 2 and 4 to about their 10 / T.
    assert (fine < torch.tensor([10, 10, 50, 50]) / 4000).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VPSDE(beta_min=0.0), "beta_min"),
        (lambda: VPSDE(beta_min=2.0, beta_max=1.0), "beta_max"),
        (lambda: SubVPSDE(t_min=0.0), "t_min"),
        (lambda: VESDE(sigma_min=0.0), "sigma_min"),
        (lambda: VESDE(sigma_min=2.0, sigma_max=1.0), "sigma_max"),
        (lambda: VESDE(t_min=1.0), "t_min"),
        (lambda: EDM(sigma_max=0.001), "sigma_max"),
        (lambda: EDM(rho=0.0), "rho"),
        (lambda: EDM(rho=math.nan), "rho"),
        (lambda: FlowMatching(t_min=0.0), "t_min"),
        (lambda: FlowMatching(t_min=1.0), "t_min"),
    ],
)
def test_numbers_without_meaning_are_refused(make, match):
    with pytest.raises(ParameterError, match=match):
        make()
