"""The heat equation under noise: invariant law, simulation, and the closed form in the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ive, roots_genlaguerre

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.pde import Bingham, GradientModes, MeanFieldForcing, PathwiseForcing, interval_multiplier
from unidiff.pde.domain import Domain, Interval, Rectangle

F64 = torch.float64


@dataclass(frozen=True)
class Given(Domain):
    """A domain of which only the eigenvalues matter."""

    values: tuple[float, ...]

    @property
    def eigenvalues(self):
        return torch.tensor(self.values, dtype=F64)

    points = ()

    def to_modes(self, values):
        return values

    def to_values(self, modes):
        return modes


# ---------------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize("domain", [Interval(9, 2.0), Rectangle((4, 6), (1.0, 2.0), ud.pde.FiniteDifferences())])
def test_directions_and_back(domain):
    modes = torch.randn(3, *domain.eigenvalues.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    modes[(slice(None), *[0] * domain.eigenvalues.ndim)] = 0
    there = GradientModes(domain)
    y, energy = there.directions(modes), domain.gradient_energy(modes)
    assert (there.eigenvalues.diff() >= 0).all()
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(3, dtype=F64), rtol=1e-15, atol=0)
    torch.testing.assert_close(energy, (domain.eigenvalues * modes**2).flatten(1).sum(1), rtol=1e-14, atol=0)
    torch.testing.assert_close(there.modes(y, energy), modes, rtol=1e-14, atol=0)
    torch.testing.assert_close(there.directions(1e-200 * modes), y, rtol=1e-14, atol=0)  # no square underflows
    with pytest.raises(ParameterError, match="not constant"):
        there.directions(torch.zeros_like(modes))


# ---------------------------------------------------------------------------------------------- the invariant law


def on_the_sphere(a):
    """E y_k^2 and E y_k^4 under exp(-y' diag(a) y) on the sphere of R^3: Gauss in the height, equal angles around."""
    height, weight = np.polynomial.legendre.leggauss(200)
    angle = 2 * math.pi * np.arange(400) / 400
    radius = np.sqrt(1 - height**2)[:, None]
    y = np.stack([radius * np.cos(angle), radius * np.sin(angle), height[:, None] + 0 * angle])
    density = weight[:, None] * np.exp(-(a[:, None, None] * y**2).sum(0))
    return [(density * y**n).sum((1, 2)) / density.sum() for n in (2, 4)]


def test_bingham_on_the_circle_is_bessel():
    # E y_1^2 = (1 + I_1(d) / I_0(d)) / 2 with d = (a_2 - a_1) / 2; and both fourth moments from I_2.
    for gap in (1e-6, 0.3, 7.0, 400.0):
        law = Bingham(torch.tensor([2.0, 2.0 + gap], dtype=F64), 1.0)
        one, two = (ive(n, gap / 2) / ive(0, gap / 2) for n in (1, 2))  # E cos 2 theta, E cos 4 theta
        cosines = torch.tensor([one, -one], dtype=F64)
        # Rounding of 100 terms: 1e-14 of the largest moment.
        torch.testing.assert_close(law.second_moments(), (1 + cosines) / 2, rtol=0, atol=1e-14)
        torch.testing.assert_close(law.fourth_moments(), (3 + 4 * cosines + two) / 8, rtol=0, atol=1e-14)


@pytest.mark.parametrize("strength", [0.3, 1.0, 5.0])
def test_bingham_on_the_sphere_against_quadrature(strength):
    rates = torch.tensor([1.0, 2.5, 4.0], dtype=F64)
    second, fourth = on_the_sphere((rates / strength**2).numpy() - 1 / strength**2)
    law = Bingham(rates, strength)
    # The reference rule is exact far beyond rounding for these densities; its 80,000 terms round to 1e-13.
    np.testing.assert_allclose(law.second_moments(), second, rtol=0, atol=1e-13)
    np.testing.assert_allclose(law.fourth_moments(), fourth, rtol=0, atol=1e-13)


def test_bingham_of_pairs_is_a_sum_of_exponentials():
    # With every eigenvalue twice the branch points are poles: Z ~ sum_j e^-a_j / prod_i (a_i - a_j), and E of a pair's
    # y^2 is -d log Z / d a_j, here by a complex step (no difference, no rounding).
    a = np.array([0.0, 3.0, 7.0, 12.0, 20.0])

    def z(a):
        return sum(np.exp(-a[j]) / np.prod([a[i] - a[j] for i in range(5) if i != j]) for j in range(5))

    pairs = [-(z(a + 1e-30j * np.eye(5)[j]) / z(a)).imag / 1e-30 for j in range(5)]
    moments = Bingham(torch.from_numpy(np.repeat(a, 2)), 1.0).second_moments()
    # The sum of alternating terms of the reference cancels three digits.
    np.testing.assert_allclose(moments, np.repeat(pairs, 2) / 2, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 10, 1000, 4096])
def test_bingham_without_rates_is_uniform_and_sums_to_one(k):
    uniform = Bingham(torch.full((k,), 3.0, dtype=F64), 2.0)
    # A sum of k logarithms at each node: rounding below 1e-16 sqrt(k), amplified by nothing.
    torch.testing.assert_close(uniform.second_moments(), torch.full((k,), 1 / k, dtype=F64), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        uniform.fourth_moments(), torch.full((k,), 3 / k / (k + 2), dtype=F64), rtol=1e-13, atol=0
    )
    for strength in (0.01, 1.0, 30.0):
        law = Bingham(torch.arange(1, k + 1, dtype=F64) ** 2, strength)
        assert float(law.second_moments().sum()) == pytest.approx(1, abs=1e-13)  # integration by parts, not a rescaling


def test_weak_noise_puts_three_eighths_of_eps_squared_over_pi_squared_outside_the_lowest_mode():
    # y_k ~ N(0, eps^2 / 2 (lambda_k - lambda_1)), and sum_{k=2}^n 1 / (k^2 - 1) = 3/4 - (2 n + 1) / (2 n (n + 1)).
    n, eps = 400, 0.02
    outside = 1 - float(PathwiseForcing(Interval(n + 1), eps).law.second_moments()[0])
    expected = eps**2 / (2 * math.pi**2) * (3 / 4 - (2 * n + 1) / (2 * n * (n + 1)))
    assert outside == pytest.approx(expected, rel=10 * expected)  # the next order is relative O(outside)


def test_the_saddle_point_of_the_bingham_law_is_the_stationary_state_in_the_mean():
    domain = Rectangle((5, 4))
    law = PathwiseForcing(domain, 3.0).law
    saddle = MeanFieldForcing.on(domain, 3.0).stationary().second_moments
    torch.testing.assert_close(1 / (2 * law._saddle), saddle, rtol=1e-13, atol=0)
    # It is the approximation for many modes: n copies of each eigenvalue and eps^2 / n give the exponent of the
    # integrand a factor n, and Laplace's method an error of O(1 / n).
    rates = torch.tensor([1.0, 2.0, 5.0], dtype=F64)

    def gap(times):
        many, q = rates.repeat(times), torch.full((3 * times,), 1.0 / times, dtype=F64)
        exact = Bingham(many, math.sqrt(1.0 / times)).second_moments()
        return float((MeanFieldForcing(many, q).stationary().second_moments - exact).abs().max() * times)

    gaps = [gap(times) for times in (16, 32, 64)]
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)  # O(1 / n)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.05)


# ---------------------------------------------------------------------------------------------- simulation


def test_noise_step_is_brownian_motion_on_the_sphere_to_second_order():
    # For equal rates a step is noise alone. Brownian motion: E cos = e^(-n s / 2), E cos^2 = (1 + n e^(-K s)) / K.
    k = 6
    n, forcing = k - 1, PathwiseForcing(Given((1.0,) * k), 1.0)
    squares, weights = roots_genlaguerre(30, n / 2 - 1)  # |xi|^2 / 2 of n dimensions
    y = torch.eye(k, dtype=F64)[0].expand(30, k)
    tangent = torch.eye(k, dtype=F64)[1] * torch.from_numpy(np.sqrt(2 * squares))[:, None]
    weights = torch.from_numpy(weights / weights.sum())

    def errors(s):
        cos = forcing.step(y, s, lambda like: tangent)[:, 0]
        means = [float((weights * cos**p).sum()) for p in (1, 2)]
        return np.abs([means[0] - math.exp(-n * s / 2), means[1] - (1 + n * math.exp(-k * s)) / k])

    # Local error O(s^3): halving s divides it by 8 (1 + O(s)).
    orders = np.log2(errors(0.004) / errors(0.002))
    np.testing.assert_allclose(orders, 3, atol=0.15)


def test_weak_order_of_the_splitting_is_two():
    # All paths of a tree: Gauss-Hermite nodes in the two tangent directions of the sphere in R^3, three each, which
    # integrate Gaussians to degree 5; degree 6 enters at O(dt^3) of a step, like the error itself.
    forcing = PathwiseForcing(Given((1.0, 3.0, 7.0)), 1.2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    pairs = torch.from_numpy(np.array([(a, b) for a in nodes for b in nodes]))
    pair_weights = torch.from_numpy(np.array([a * b for a in weights for b in weights]) / (2 * math.pi))

    def mean(time, steps):
        y = torch.tensor([[0.3, -0.5, 0.8]], dtype=F64)
        y, weight = y / y.norm(), torch.ones(1, dtype=F64)
        for _ in range(steps):
            y, weight = y.repeat_interleave(9, 0), (weight[:, None] * pair_weights).flatten()
            branch = pairs.repeat(len(y) // 9, 1)

            def tangent(like, branch=branch):
                first = torch.linalg.cross(like, torch.tensor([[1.0, 2.0, -1.0]], dtype=F64).expand_as(like))
                first = first / first.norm(dim=-1, keepdim=True)
                return branch[:, :1] * first + branch[:, 1:] * torch.linalg.cross(like, first)

            y = forcing.step(y, time / steps, tangent)
        return torch.stack([(weight[:, None] * f).sum(0) for f in (y, y**2)])

    one, two, four = (mean(0.02, steps) for steps in (1, 2, 4))
    # Error C time^3 / steps^2 (1 + O(time)): successive differences are as 4 to 1.
    orders = torch.log2(((one - two) / (two - four)).abs())
    torch.testing.assert_close(orders, torch.full((2, 3), 2.0, dtype=F64), rtol=0, atol=0.15)


@pytest.mark.slow  # 3 s
@pytest.mark.parametrize(("strength", "paths"), [(math.sqrt(5), 16_000), (math.sqrt(20), 4000)])
def test_simulation_samples_the_bingham_law(strength, paths):
    domain, generator = Interval(7), torch.Generator().manual_seed(1)
    forcing, exact = PathwiseForcing(domain, strength), PathwiseForcing(domain, strength).law.second_moments()

    def noise(like):
        return torch.randn(like.shape, generator=generator)

    # From the stationary law in the mean, which is a quarter off at most. The slowest even mode of the generator of
    # the two lowest modes decays at 24 (at eps^2 = 5; a discretised generator's eigenvalue), so that 0.2 leaves 1 %
    # of that, and the mean over the next 0.4 a tenth of the rest.
    y = (
        torch.randn(paths, 6, generator=generator)
        * MeanFieldForcing.on(domain, strength).stationary()[1].sqrt().float()
    )
    y = y / y.norm(dim=-1, keepdim=True)
    states = list(forcing.trajectory(y, 0.6, 600, noise))[200::10]
    squares = torch.stack(states).double().square().mean(0)[:, :3]  # a mean along each path: paths are independent
    standard_error, exact = squares.std(0) / math.sqrt(paths), exact[:3]
    error = (squares.mean(0) - exact).abs()
    assert (4 * standard_error < 0.02 * exact).all()  # so that 2 % is a bound of four standard errors
    assert (error < 0.02 * exact).all()


def test_each_path_has_its_own_stream_and_stays_on_the_sphere():
    forcing = PathwiseForcing(Interval(9), 1.0)
    y = GradientModes(Interval(9)).directions(Interval(9).to_modes(torch.randn(3, 9, dtype=F64)))
    together = list(forcing.trajectory(y, 0.1, 20, ud.Seeded(range(3))))
    alone = list(forcing.trajectory(y[2:], 0.1, 20, ud.Seeded([2])))
    torch.testing.assert_close(together[-1][2:], alone[-1], rtol=1e-12, atol=1e-14)
    assert len(together) == 20
    torch.testing.assert_close(together[-1].norm(dim=-1), torch.ones(3, dtype=F64), rtol=1e-15, atol=0)


def test_without_much_noise_a_step_is_the_exact_flow():
    forcing = PathwiseForcing(Interval(9), 1e-150)
    y = torch.full((1, 8), 8**-0.5, dtype=F64)
    *_, last = forcing.trajectory(y, 0.05, 7, ud.Seeded([0]))
    exact = torch.exp(-forcing.coordinates.eigenvalues * 0.05)
    torch.testing.assert_close(last[0], exact / exact.norm(), rtol=1e-12, atol=0)


# ---------------------------------------------------------------------------------------------- in the mean


def some_spectrum(k):
    m = torch.arange(1, k + 1, dtype=F64) ** -1.5
    return m / m.sum()


@pytest.mark.parametrize("strength", [0.1, math.sqrt(5), 10.0])
def test_closed_form_solves_the_nonlinear_moment_equations(strength):
    forcing, start = MeanFieldForcing.on(Interval(13), strength), some_spectrum(12)
    rates, q = forcing.rates.numpy(), forcing.noise.numpy()
    times = [1e-5, 1e-3, 0.02, 0.1]

    def slope(_, state):
        m, mean, rho = state[:12], state[12:24], state[24]
        r = (rates * m).sum() - q.sum() / 2
        return np.concatenate([2 * (r - rates) * m + q, (r - rates) * mean, [r + 0 * rho]])

    begin = np.concatenate([start.numpy(), np.ones(12), [0.0]])
    found = solve_ivp(slope, (0, 0.1), begin, "DOP853", times, rtol=1e-13, atol=1e-15).y.T
    for time, expected in zip(times, found):
        state = forcing.at(time, start)
        np.testing.assert_allclose(state.second_moments, expected[:12], rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.alpha, expected[12:24], rtol=0, atol=1e-12)
        assert state.rho == pytest.approx(expected[24], rel=1e-10, abs=1e-12)
        assert state.multiplier == pytest.approx((rates * expected[:12]).sum() - q.sum() / 2, rel=1e-10, abs=1e-8)


@pytest.mark.parametrize("domain", [Interval(40), Rectangle((6, 6))])  # the square has equal eigenvalues
@pytest.mark.parametrize(("time", "later"), [(1e-6, 1e-3), (0.01, 0.02), (0.1, 30.0), (1e3, 1e9)])
def test_closed_form_composes(domain, time, later):
    forcing = MeanFieldForcing.on(domain, 1.5, smoothness=0.5)
    start = some_spectrum(len(forcing.rates))
    first = forcing.at(time, start)
    second = forcing.at(later, first.second_moments)
    whole = forcing.at(time + later, start)
    # exp(-(lambda - r) t) turns the rounding of its argument, 1e-16 of up to 700, into a relative error.
    torch.testing.assert_close(first.alpha * second.alpha, whole.alpha, rtol=1e-12, atol=1e-300)
    torch.testing.assert_close(second.alpha**2 * first.variance + second.variance, whole.variance, rtol=1e-12, atol=0)
    assert float(whole.second_moments.sum()) == pytest.approx(1, abs=1e-13)
    assert whole.rho == pytest.approx(first.rho + second.rho, rel=1e-12)


def test_closed_form_at_the_ends_of_time():
    forcing, start = MeanFieldForcing.on(Interval(33), 2.0), some_spectrum(32)
    at_once = forcing.at(0.0, start)
    torch.testing.assert_close(at_once.second_moments, start, rtol=0, atol=0)
    assert at_once.rho == 0
    # sigma_k^2 = q_k t (1 + O((lambda_max + sum q) t)): accurate relative to itself, no difference of close numbers.
    early = forcing.at(1e-14, start)
    torch.testing.assert_close(early.variance, forcing.noise * 1e-14, rtol=1e-9, atol=0)
    for time in (10.0, 1e6, 1e12):
        late = forcing.at(time, start)
        torch.testing.assert_close(late.second_moments, forcing.stationary().second_moments, rtol=1e-13, atol=0)
        assert late.multiplier == pytest.approx(forcing.stationary().multiplier, rel=1e-11)
        assert late.rho / time == pytest.approx(forcing.stationary().multiplier, rel=10 / time)
        assert (late.alpha == 0).all() or time == 10


def test_without_laplacian_it_is_the_variance_preserving_sde():
    beta, k = 0.3, 5
    forcing = MeanFieldForcing(torch.zeros(k, dtype=F64), torch.full((k,), beta / k, dtype=F64))
    assert forcing.stationary().multiplier == pytest.approx(-beta / 2, rel=1e-15)
    process, t = ud.VPSDE(beta_min=beta, beta_max=beta), torch.tensor([1e-3, 0.5, 1.0], dtype=F64)  # beta constant
    for time in t:
        state = forcing.at(float(time), torch.full((k,), 1 / k, dtype=F64))
        assert state.multiplier == pytest.approx(-beta / 2, rel=1e-13)
        alpha, variance = float(process.log_alpha(time).exp()), float(process.log_sigma(time).exp()) ** 2
        torch.testing.assert_close(state.alpha, torch.full((k,), alpha, dtype=F64), rtol=1e-12, atol=0)
        torch.testing.assert_close(k * state.variance, torch.full((k,), variance, dtype=F64), rtol=1e-12, atol=0)


def test_draws_have_the_moments():
    forcing = MeanFieldForcing.on(Interval(5), 2.0)
    y0 = torch.tensor([0.8, -0.6, 0.0, 0.0], dtype=F64)
    state = forcing.at(0.01, y0**2)
    drawn = state.draw(y0.expand(20_000, 4), lambda like: torch.randn(like.shape, dtype=F64))
    assert (drawn.mean(0) - state.alpha * y0).abs().max() < 5 * (state.variance.max() / 20_000).sqrt()
    assert float(drawn.square().sum(1).mean()) == pytest.approx(1, abs=0.03)  # five standard errors of about 0.006


def test_on_an_interval_the_multiplier_changes_sign_at_twelve():
    assert interval_multiplier(math.sqrt(12)) == pytest.approx(0, abs=1e-12)
    assert interval_multiplier(math.sqrt(11.99)) > 0 > interval_multiplier(math.sqrt(12.01))
    assert interval_multiplier(math.sqrt(12) / 3, 3.0) == pytest.approx(0, abs=1e-12)
    assert interval_multiplier(math.sqrt(5)) == pytest.approx(6.8198, abs=5e-5)
    for strength in (0.5, 2.0, 3.4, 3.5, 10.0):
        # K modes leave out sum_{k>K} q / 2 (pi k)^2 = q / 2 pi^2 (1/K - 1/2K^2 ..), which r makes up for by the slope.
        limit, errors = interval_multiplier(strength), []
        for k in (200, 400, 800):
            stationary = MeanFieldForcing.on(Interval(k + 1), strength).stationary()
            slope = float((2 * stationary.second_moments**2).sum()) / strength**2
            tail = strength**2 / (2 * math.pi**2 * k)
            errors.append(stationary.multiplier - limit - tail / slope)
        assert abs(errors[-1]) < 0.02 * tail / slope  # the leading error is as derived
        np.testing.assert_allclose(
            np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15
        )  # what is left is O(1/K^2)


def test_white_noise_has_a_limit_on_an_interval_and_none_on_a_square():
    def share(domain, smoothness=0.0):
        return float(MeanFieldForcing.on(domain, math.sqrt(5), smoothness).stationary().second_moments[0])

    line = [share(Interval(k + 1)) for k in (8, 32, 128, 512)]
    limit = 5 / (2 * (math.pi**2 - interval_multiplier(math.sqrt(5))))
    assert line == pytest.approx([0.849, 0.827, 0.8217, 0.8202], abs=5e-4)
    assert abs(line[-1] - limit) < 1e-3
    # The lost share goes like 1/K: three terms of four are gone when K is four times as large.
    assert np.divide(*(np.array(line) - limit)[[2, 3]]) == pytest.approx(4, abs=0.1)
    square = [share(Rectangle((n, n))) for n in (4, 8, 16, 32, 64)]
    assert (np.diff(square) < 0).all()
    # sum q / lambda grows by q / (4 pi) log 4 per doubling: r falls without end, and the share with it.
    assert square[-1] < square[1] / 2
    smooth = [share(Rectangle((n, n)), 1.0) for n in (8, 16, 32, 64)]
    # With s = 1 the sum converges like n^-2: each doubling changes the share by a quarter of the change before.
    np.testing.assert_allclose(np.divide(np.diff(smooth)[:-1], np.diff(smooth)[1:]), 4, atol=0.6)


def test_errors_name_the_parameter():
    with pytest.raises(ParameterError, match="strength"):
        PathwiseForcing(Interval(5), 0.0)
    with pytest.raises(ParameterError, match="noise"):
        MeanFieldForcing(torch.ones(3), torch.tensor([1.0, 0.0, 1.0]))
    forcing = MeanFieldForcing.on(Interval(5), 1.0)
    with pytest.raises(ParameterError, match="sum 1"):
        forcing.at(1.0, torch.ones(4))
    with pytest.raises(ParameterError, match="time"):
        forcing.at(-1.0, torch.ones(4) / 4)
