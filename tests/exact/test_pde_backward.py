"""The heat equation backwards: exact on modes, and each mollifier against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.pde import (
    GradientModes,
    MeanFieldForcing,
    Observation,
    PosteriorMean,
    PosteriorSample,
    SpectralCutoff,
    Tikhonov,
    TruncatedInverse,
    Wiener,
    mode_deviation,
    posterior,
    recover,
    recover_modes,
    resolution,
    resolvable_modes,
)
from unidiff.pde.domain import Interval, Rectangle
from unidiff.pde.evolution import evolve
from unidiff.pde.mesh import Mask

F64 = torch.float64
R = 11.15


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def scale_by(domain, modes):
    """Modes of gradient energy R, without the constant."""
    gradient = GradientModes(domain)
    selected = gradient.select(modes)
    size = (gradient.eigenvalues * selected**2).sum(-1, keepdim=True).sqrt()
    return gradient.embed(math.sqrt(R) * selected / size)


def flow(domain, modes, time):
    """The exact flow: the heat semigroup and one rescaling."""
    rates = domain.eigenvalues - GradientModes(domain).eigenvalues[0]
    return scale_by(domain, torch.exp(-rates * time) * modes)


def hats(domain):
    """Two hats of different heights on the unit interval."""
    values = domain.field(
        lambda x: (1 - (x - 0.3).abs() / 0.2).clamp(min=0) + 0.6 * (1 - (x - 0.75).abs() / 0.1).clamp(min=0)
    )
    return scale_by(domain, domain.to_modes(values))


def relative_error(domain, found, truth):
    """|grad (found - truth)| / sqrt(R)."""
    return (domain.gradient_energy(found - truth) / R).sqrt()


def noise_of(domain, modes, relative):
    """Deviation in each mode of noise that is `relative` times the root mean square of the field's values."""
    return mode_deviation(domain, relative * float(domain.to_values(modes).square().mean().sqrt()))


# ---------------------------------------------------------------------------------------------- the flow is a group


@pytest.mark.parametrize(("domain", "time"), [(Interval(32), 0.03), (Rectangle((12, 8)), 0.1), (Interval(32), 0.0)])
def test_round_trip_on_modes(domain, time):
    start = scale_by(domain, normal(5, *domain.eigenvalues.shape))
    back = recover_modes(domain, flow(domain, start, time), time, TruncatedInverse(), R)
    # exp turns the rounding of lambda T <= 300 into relative 300 eps = 7e-14 per mode, there and back.
    torch.testing.assert_close(back, start, rtol=1e-12, atol=0)


def test_recover_is_recover_modes_on_the_grid():
    domain = Rectangle((8, 6), (1.0, 2.0))
    start = scale_by(domain, normal(2, 8, 6) / (1 + domain.eigenvalues))
    values = domain.to_values(flow(domain, start, 0.002))
    found = recover(domain, values + 3.0, 0.002, TruncatedInverse(), R)  # the mean is outside the constraint
    # Amplified by e^(lambda_max T) = e^1.2 only: values of size about 1 keep 1e-13.
    torch.testing.assert_close(found, domain.to_values(start), rtol=0, atol=1e-12)
    single = recover(domain, values.float(), 0.002, SpectralCutoff(), R, 1e-6)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [TruncatedInverse(), TruncatedInverse(9), SpectralCutoff(), Tikhonov(), Wiener(torch.arange(1.0, 128) ** -4)],
)
@pytest.mark.parametrize("time", [1e-3, 1.0, 100.0])
def test_length_comes_from_the_invariant_and_nothing_overflows(method, time):
    domain = Interval(128)
    seen = flow(domain, hats(domain), time) + 1e-3 * normal(4, 128)
    found = recover_modes(domain, seen, time, method, R, 1e-3)
    torch.testing.assert_close(domain.gradient_energy(found), torch.full((4,), R, dtype=F64), rtol=1e-13, atol=0)
    assert (relative_error(domain, found, hats(domain)) <= 2 + 1e-12).all()  # two points of one sphere
    # The scale of what is seen does not matter where there is no prior: the direction is all that is used.
    if not isinstance(method, Wiener):
        torch.testing.assert_close(recover_modes(domain, 7 * seen, time, method, R, 7e-3), found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("time", "relative"), [(1e-3, 1e-2), (1e-2, 1e-12), (1e-1, 1e-6)])
def test_naive_inverse_saturates_where_that_of_the_heat_equation_overflows(time, relative):
    domain, truth = Interval(128), hats(Interval(128))
    seen = flow(domain, truth, time)
    seen = seen + noise_of(domain, seen, relative) * normal(50, 128)
    error = relative_error(domain, recover_modes(domain, seen, time, TruncatedInverse(), R), truth)
    # The highest mode is left: at right angles to the truth up to the truth's share of the few modes around it.
    share = float((domain.eigenvalues * truth**2)[-12:].sum() / R)
    torch.testing.assert_close(error, torch.full_like(error, math.sqrt(2)), rtol=0, atol=math.sqrt(share))
    assert math.sqrt(share) < 0.05
    heat = relative_error(domain, torch.exp(domain.eigenvalues * time) * seen, truth)
    assert float(heat.min()) > 1e30


# ---------------------------------------------------------------------------------------------- mollifiers


def observation(v, time=1e-3, deviation=1.0):
    k = v.shape[-1]
    return Observation(v, GradientModes(Interval(k + 1)).eigenvalues, time, R, deviation)


def test_cut_off_ends_where_the_definition_says():
    v = torch.tensor([[9.0, -8, 7, 1, 6, 2, 2, 9], [9, 0, 8, 0, 5, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], dtype=F64)
    assert SpectralCutoff(run=1).resolved_modes(observation(v)).sum(-1).tolist() == [
        3,
        1,
        1,
    ]  # the lowest mode always stays
    assert SpectralCutoff(run=2).resolved_modes(observation(v)).sum(-1).tolist() == [5, 5, 1]
    assert SpectralCutoff(run=3).resolved_modes(observation(v)).sum(-1).tolist() == [8, 5, 1]
    assert SpectralCutoff(sigmas=6.5, run=1).resolved_modes(observation(v)).sum(-1).tolist() == [3, 1, 1]


def test_a_band_in_which_nothing_is_seen_is_zero():
    v = torch.tensor([[0.0, 5.0, 3.0]], dtype=F64)
    assert (TruncatedInverse(1).start(observation(v)) == 0).all()
    assert (SpectralCutoff(sigmas=9.0).start(observation(v)) == 0).all()


def test_a_symmetric_field_needs_a_run_of_two():
    domain = Interval(64)
    truth = scale_by(domain, domain.to_modes(domain.field(lambda x: torch.exp(-(((x - 0.5) / 0.1) ** 2)))))
    seen = flow(domain, truth, 1e-3)
    deviation = noise_of(domain, seen, 1e-4)
    seen = seen + deviation * normal(64)

    def error(method):
        return float(relative_error(domain, recover_modes(domain, seen, 1e-3, method, R, deviation), truth))

    # Mode 1 is 0, so a run of 1 keeps noise alone, at right angles to the truth.
    assert error(SpectralCutoff(run=1)) == pytest.approx(math.sqrt(2), abs=0.01)
    assert error(SpectralCutoff(run=2)) < 1.1 * min(error(TruncatedInverse(n)) for n in range(1, 63))


@pytest.mark.parametrize(("time", "relative"), [(1e-4, 1e-3), (1e-3, 1e-2), (1e-2, 1e-3)])
def test_tikhonov_meets_its_discrepancy_and_solves_its_equations(time, relative):
    domain, gradient = Interval(24), GradientModes(Interval(24))
    seen = flow(domain, hats(domain), time)
    deviation = noise_of(domain, seen, relative)
    v = gradient.select(seen + deviation * normal(6, 24))
    observed = Observation(v, gradient.eigenvalues, time, R, deviation)
    found = Tikhonov().start(observed)
    for row in range(6):
        mu = float(Tikhonov().penalty(observed)[row].exp())
        g = torch.diag(torch.exp(-gradient.eigenvalues * time))
        direct = torch.linalg.solve(g @ g + mu * torch.diag(gradient.eigenvalues), g @ v[row])
        # 80 halvings of a range of a few hundred leave the rounding of the log of mu: 1e-13.
        assert float((g @ direct - v[row]).square().sum()) == pytest.approx(23 * deviation**2, rel=1e-10)
        direct = direct * math.sqrt(R / float((gradient.eigenvalues * direct**2).sum()))
        torch.testing.assert_close(found[row], direct, rtol=1e-8, atol=1e-12)


def test_tikhonov_of_noise_alone_is_smoothest():
    # Data under their noise: mu is infinite, a_k ~ g_k v_k / lambda_k.
    v = 0.5 * normal(7)
    rates = observation(v).eigenvalues
    expected = torch.exp(-rates * 1e-3) * v / rates
    found = Tikhonov().start(observation(v))
    torch.testing.assert_close(found, expected * math.sqrt(R / float((rates * expected**2).sum())), rtol=1e-12, atol=0)


def test_posterior_is_gaussian_conditioning_on_the_grid():
    # On the values themselves, with dense matrices: C = V S V', seen = V g V' u + noise in each cell.
    domain, time, deviation = Rectangle((3, 4), (1.0, 2.0)), 0.02, 0.1
    gradient = GradientModes(domain)
    spectrum = torch.linspace(1, 2, 11, dtype=F64) / gradient.eigenvalues**1.5
    v = domain.to_values(gradient.embed(torch.eye(11, dtype=F64))).flatten(1).T  # columns are modes: (12, 11)
    seen = normal(12)
    observed = Observation(v.T @ seen / 6, gradient.eigenvalues, time, R, mode_deviation(domain, deviation))
    growth = PosteriorMean(spectrum).growth(observed)
    g = torch.exp(growth - (gradient.eigenvalues - gradient.eigenvalues[0]) * time)
    forward = v @ torch.diag(g) @ v.T / 6  # 12 cells of volume 1/6
    prior = v @ torch.diag(spectrum) @ v.T
    gain = prior @ forward.T @ torch.linalg.inv(forward @ prior @ forward.T + deviation**2 * torch.eye(12, dtype=F64))
    mean, covariance = gain @ seen, prior - gain @ forward @ prior
    found = recover(domain, seen.reshape(3, 4), time, PosteriorMean(spectrum), R, deviation)
    torch.testing.assert_close(found.flatten(), mean, rtol=1e-10, atol=1e-12)
    variance = PosteriorMean(spectrum).posterior(observed).variance
    torch.testing.assert_close(v @ torch.diag(variance) @ v.T, covariance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("time", "relative"), [(1e-4, 1e-2), (1e-3, 1e-6), (1e-2, 1e-2)])
def test_growth_of_the_posterior_is_told_by_the_invariant(time, relative):
    domain, gradient, draws = Interval(64), GradientModes(Interval(64)), 50
    truth = scale_by(domain, normal(draws, 64) / torch.arange(64, dtype=F64).clamp(min=1) ** 2)
    spectrum = gradient.select(truth).square().mean(0)
    seen = flow(domain, truth, time)
    deviation = noise_of(domain, seen, relative)
    v = gradient.select(seen + deviation * normal(draws, 64, seed=3))
    observed = Observation(v, gradient.eigenvalues, time, R, deviation)
    growth = PosteriorMean(spectrum).growth(observed)
    mean, variance = PosteriorMean(spectrum).posterior(observed)
    energy = (gradient.eigenvalues * (mean**2 + variance)).sum(-1)
    inside = growth > 0
    assert float(inside.double().mean()) > 0.7
    # Bisected 50 times from less than 1: to rounding, which the slope of the energy multiplies by less than 10.
    torch.testing.assert_close(energy[inside], torch.full_like(energy[inside], R), rtol=1e-12, atol=0)
    # It is the growth of each field, not one for all: nearer to the true one than the mean over fields is.
    true = (seen[:, 1] / truth[:, 1]).log()
    assert float((growth - true).abs().mean()) < float((true - true.mean()).abs().mean())


def test_posterior_of_noise_alone_is_the_prior():
    spectrum = torch.linspace(1, 0.1, 7, dtype=F64)
    rates = GradientModes(Interval(8)).eigenvalues
    spectrum = spectrum * R / float((rates * spectrum).sum())
    mean, variance = PosteriorMean(spectrum).posterior(observation(1e-3 * normal(2, 7), 0.1, 1e3))
    torch.testing.assert_close(variance, spectrum.expand(2, -1), rtol=1e-5, atol=0)
    assert float(mean.abs().max()) < 1e-6


def test_posterior_sample_has_the_moments_of_the_posterior():
    spectrum, v = torch.linspace(1, 0.1, 7, dtype=F64), normal(3, 7)
    mean, variance = PosteriorMean(spectrum).posterior(observation(v, 0.01, 0.2))
    drawn = PosteriorSample(spectrum, (4, 5, 6)).start(observation(v, 0.01, 0.2))
    # An affine image of standard normal noise with this mean and these variances: so its moments are exact.
    torch.testing.assert_close((drawn - mean) / variance.sqrt(), ud.Seeded((4, 5, 6))(mean), rtol=1e-12, atol=1e-14)
    # Without a batch, a batch of one; with more axes, one seed for each field.
    alone = PosteriorSample(spectrum).start(observation(v[0], 0.01, 0.2))
    torch.testing.assert_close(alone, PosteriorSample(spectrum, (0,)).start(observation(v[:1], 0.01, 0.2))[0])
    many = PosteriorSample(spectrum, (4, 5, 6)).start(observation(v[None], 0.01, 0.2))
    torch.testing.assert_close(many, drawn[None])
    with pytest.raises(ParameterError, match="seeds must be one for each of 3 fields, got 1"):
        PosteriorSample(spectrum).start(observation(v, 0.01, 0.2))
    # Averaged over the data the sample has the prior's power: E mean^2 + variance = S.
    gain, s = torch.tensor([1.0, 0.3, 1e-3, 0.0], dtype=F64), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)
    one = posterior(torch.ones(4, dtype=F64), gain, 0.25, s)
    power_of_v = gain**2 * s + 0.25
    torch.testing.assert_close(one.mean**2 * power_of_v + one.variance, s, rtol=1e-15, atol=0)


def test_noise_bounds_the_gain_of_the_posterior():
    s, delta, g = 3.0, 0.2, torch.logspace(-300, 3, 4000, dtype=F64)
    gain = posterior(torch.ones_like(g), g, delta**2, torch.full_like(g, s)).mean
    bound = math.sqrt(s) / (2 * delta)
    assert float(gain.max()) <= bound
    assert float(gain.max()) == pytest.approx(bound, rel=0.01)  # reached where g^2 S = delta^2; the grid is that fine


CASES = [(1e-3, 1e-6), (3e-3, 1e-6), (1e-2, 1e-12), (1e-2, 1e-3)]


@pytest.mark.parametrize("field", ["hats", "random"])
@pytest.mark.parametrize(("time", "relative"), CASES)
def test_cut_off_is_near_the_wiener_filter_that_knows_the_spectrum(time, relative, field):
    # Given up are the modes between 1 and 3 deviations, log(3) / (2 pi^2 K T) of the K resolvable. With shares of R
    # that fall like k^-2 the squared error is about 1 / K and each of them adds 1 / K^2: the error grows by a part
    # log(3) / (4 pi^2 K^2 T), below 5 % here. The rest of the tenth is for bands that a run of small coefficients ends.
    domain, draws = Interval(128), 300
    k = torch.arange(128, dtype=F64).clamp(min=1)
    truth = scale_by(domain, hats(domain).expand(draws, -1) if field == "hats" else normal(draws, 128, seed=1) / k**2)
    seen = flow(domain, truth, time)
    deviation = noise_of(domain, seen, relative)
    seen = seen + deviation * normal(draws, 128, seed=2)
    resolvable = float(resolvable_modes(domain, truth, time, deviation).double().mean())
    assert resolvable >= 5
    assert math.log(3) / (4 * math.pi**2 * resolvable**2 * time) < 0.1
    filtered = Wiener(GradientModes(domain).select((truth**2).mean(0)))
    cut, wiener = (
        relative_error(domain, recover_modes(domain, seen, time, method, R, deviation), truth)
        for method in (SpectralCutoff(), filtered)
    )
    three_errors = 3 * float((cut - 1.1 * wiener).std()) / math.sqrt(draws)
    assert float((cut - 1.1 * wiener).mean()) < three_errors
    assert float(cut.mean()) < 1.1 * float(wiener.mean())


def test_finite_resolution_is_a_mollifier_with_its_optimum_at_the_resolvable_modes():
    domain, truth = Interval(128), hats(Interval(128))
    for time, relative in ((1e-3, 1e-3), (3e-3, 1e-4), (1e-2, 1e-6)):
        seen = flow(domain, truth, time)
        deviation = noise_of(domain, seen, relative)
        seen = seen + deviation * normal(100, 128)
        errors = torch.stack(
            [
                relative_error(domain, recover_modes(domain, seen, time, TruncatedInverse(n), R), truth).mean()
                for n in range(1, 60)
            ]
        )
        best, resolvable = 1 + int(errors.argmin()), int(resolvable_modes(domain, truth, time, deviation))
        assert abs(best - resolvable) <= max(3, 0.2 * resolvable)
        assert float(errors[resolvable - 1]) < 1.2 * float(errors.min())
        # One and a half times as many modes: e^(lambda T) is past 1 / delta by a power of 1.25.
        assert float(errors[int(1.7 * resolvable)]) > 1.2
        assert float(errors[0]) > 1.5 * float(errors.min())


# ---------------------------------------------------------------------------------------------- resolution


def test_resolution_formula():
    # lambda_K T = log(1 / delta) at K = K*.
    for time, delta, length in ((1e-2, 1e-12, 1.0), (1e-3, 0.1, 2.5)):
        k = resolution(time, delta, length)
        assert math.exp(-((math.pi * k / length) ** 2) * time) == pytest.approx(delta, rel=1e-12)
        # Equal amplitudes: as many modes as the formula says, when the noise is relative to a e^rho.
        domain = Interval(64, length)
        modes = torch.ones(64, dtype=F64)
        rates = GradientModes(domain).eigenvalues
        growth = (rates.sum() / (rates * torch.exp(-2 * rates * time)).sum()).sqrt()
        assert int(resolvable_modes(domain, modes, time, delta * float(growth))) == math.floor(k)
    np.testing.assert_allclose([resolution(1e-2, d) for d in (1e-12, 1e-6, 1e-3)], [16.7, 11.8, 8.37], atol=0.05)


def test_resolvable_modes_when_low_ones_are_absent():
    # phi_3 alone is a steady state: it is seen at any time, where e^(-(lambda_3 - lambda_1) T) underflows.
    domain = Interval(16)
    modes = torch.stack([domain.eigenmode(3), domain.eigenmode(3) + domain.eigenmode(5)])
    assert resolvable_modes(domain, modes, 100.0, 1e-3).tolist() == [1, 1]
    assert resolvable_modes(domain, modes, 0.0, 1e-3).tolist() == [1, 2]
    square = Rectangle((6, 6))  # phi_1 and phi_2 have the same eigenvalue: both stay
    assert int(resolvable_modes(square, square.eigenmode(1) + square.eigenmode(2), 100.0, 1e-3)) == 2


def test_noise_in_cells_and_in_modes():
    domain = Rectangle((16, 10), (2.0, 3.0))
    modes = domain.to_modes(normal(4000, 16, 10))
    expected = mode_deviation(domain, 1.0)
    assert expected == pytest.approx(math.sqrt(6 / 160), rel=1e-14)
    assert float(modes.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * modes.numel()))  # four standard errors


# ---------------------------------------------------------------------------------------------- noise during the flow


@pytest.mark.parametrize(("strength", "time"), [(1e-3, 1e-3), (0.1, 1e-2), (1.0, 1e-1)])
def test_noise_during_the_flow_leaves_the_error_of_the_formula(strength, time):
    # y_k(T) = alpha y_k(0) + sigma xi: relative mean square error sum_k S sigma^2 / (alpha^2 S + sigma^2), sum S = 1.
    domain, draws = Interval(33), 4000
    spectrum = torch.arange(1, 33, dtype=F64) ** -2
    spectrum = spectrum / spectrum.sum()
    state = MeanFieldForcing.on(domain, strength).at(time, spectrum)
    y = spectrum.sqrt() * normal(draws, 32)
    seen = state.draw(y, lambda like: normal(*like.shape, seed=5))
    found = posterior(seen, state.alpha, state.variance, spectrum)
    squares = (found.mean - y).square().sum(1)
    assert float(squares.mean()) == pytest.approx(
        float(found.variance.sum()), abs=4 * float(squares.std()) / math.sqrt(draws)
    )


def test_errors_name_the_parameter():
    domain, modes = Interval(8), torch.ones(8, dtype=F64)
    for name, call in {
        "time": lambda: recover_modes(domain, modes, -1.0, TruncatedInverse(), R),
        "energy": lambda: recover_modes(domain, modes, 1.0, TruncatedInverse(), 0.0),
        "deviation": lambda: recover_modes(domain, modes, 1.0, Tikhonov(), R),
        "spectrum": lambda: recover_modes(domain, modes, 1.0, Wiener(torch.ones(3)), R, 0.1),
        "modes": lambda: recover_modes(domain, torch.zeros(8), 1.0, TruncatedInverse(), R),
        "modes must be finite": lambda: recover_modes(domain, modes * math.nan, 1.0, TruncatedInverse(), R),
        "modes must be a tensor with last axes": lambda: recover_modes(
            domain, torch.ones(7), 1.0, TruncatedInverse(), R
        ),
        "values must be finite": lambda: recover(domain, modes * math.inf, 1.0, TruncatedInverse(), R),
        "spectrum must be .* got -1": lambda: recover_modes(
            domain, modes, 1.0, Wiener(torch.linspace(-1, 1, 7)), R, 0.1
        ),
        "spectrum must be .* got nan": lambda: recover_modes(
            domain, modes, 1.0, Wiener(torch.full((7,), math.nan)), R, 0.1
        ),
        "run": lambda: SpectralCutoff(run=0),
        "sigmas": lambda: SpectralCutoff(sigmas=-1.0),
        "relative_noise": lambda: resolution(1.0, 1.0),
    }.items():
        with pytest.raises(ParameterError, match=name):
            call()


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("size", [1e-30, 0.1, 1e30])
def test_rounding_is_not_a_field(dtype, size):
    # To a mask that keeps 4 modes its mode 40 is what rounding leaves of it; so is a constant to any domain.
    fine, coarse = (Mask(np.ones((12, 8)), modes=modes) for modes in (60, 4))
    for domain, u0 in (
        (coarse, fine.to_values(fine.eigenmode(40))),
        (coarse, torch.ones(96, dtype=F64)),
        (Interval(32), torch.ones(32, dtype=F64)),
    ):
        u0 = (size * u0).to(dtype)
        with pytest.raises(ParameterError, match="u0: the field is constant"):
            evolve(domain, u0, 0.1, R=1.0)
        with pytest.raises(ParameterError, match="values: the field is constant"):
            recover(domain, u0, 0.1, SpectralCutoff(), R)
    # Little of a field is enough: a share 1000 eps in a mode has two digits, whatever the mean and the other modes.
    eps = torch.finfo(dtype).eps
    little = 1 + 1000 * eps * Interval(32).to_values(Interval(32).eigenmode(1))
    found = evolve(Interval(32), (size * little).to(dtype), 1.0, R=1.0)
    assert float(found.modes[1].abs()) * math.pi == pytest.approx(1, rel=1e-6)
    part = fine.to_values(fine.eigenmode(40) + 1000 * eps * fine.eigenmode(1))
    assert float(evolve(coarse, (size * part).to(dtype), 1.0, R=1.0).shares[1]) == pytest.approx(1, abs=1e-3)
