"""The exact solution of the renormalised heat equation against direct integrations of it, and its identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError

F64 = torch.float64
PI2 = math.pi**2


def second_difference(n: int, side: float) -> np.ndarray:
    """The 3-point Laplacian on n cells, mirrored at the ends, written out."""
    matrix = np.diag(-2.0 * np.ones(n)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    matrix[0, 0] = matrix[-1, -1] = -1.0
    return matrix * (n / side) ** 2


def integrate(laplacian: np.ndarray, u0: np.ndarray, t: float, rtol: float = 3e-14) -> np.ndarray:
    """u' = A u + r u with r = |A u|^2 / (u, -A u), by DOP853; the mean of u_0 is 0.

    The error stays near rtol: that form does not see the size of u, and the shape is attracted, not repelled.
    """

    def right(_: float, u: np.ndarray) -> np.ndarray:
        heat = laplacian @ u
        return heat - (heat @ heat) / (u @ heat) * u

    found = solve_ivp(right, (0, t), u0, "DOP853", rtol=rtol, atol=1e-16 * np.abs(u0).max())
    assert found.success
    return found.y[:, -1]


def relative(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def rough(*shape: int) -> torch.Tensor:
    """Random values of mean 0."""
    u = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(3))
    return u - u.mean()


# ---------------------------------------------------------------------------------------------- direct integrations


@pytest.mark.parametrize("t", [1e-4, 0.003, 0.05])
def test_on_cells_it_is_the_direct_integration(t):
    n, side = 20, 1.7
    u0 = rough(n)
    true = integrate(second_difference(n, side), u0.numpy(), t)
    found = pde.evolve(ud.pde.Interval(n, side, ud.pde.FiniteDifferences()), u0, t)
    assert relative(found.values.numpy(), true) < 1e-12
    # Single precision: the transform rounds a state of norm 1 by 6e-8 * sqrt(n) or so, and e^(-lambda t) in float64.
    single = pde.evolve(ud.pde.Interval(n, side, ud.pde.FiniteDifferences()), u0.float(), t)
    assert single.values.dtype == torch.float32
    assert relative(single.values.numpy(), true) < 5e-6


def test_on_a_rectangle_it_is_the_direct_integration():
    (m, n), sides = (8, 11), (0.8, 2.0)
    laplacian = np.kron(second_difference(m, sides[0]), np.eye(n)) + np.kron(np.eye(m), second_difference(n, sides[1]))
    u0 = rough(m, n)
    true = integrate(laplacian, u0.numpy().ravel(), 0.02)
    assert (
        relative(
            pde.evolve(ud.pde.Rectangle((m, n), sides, ud.pde.FiniteDifferences()), u0, 0.02).values.numpy().ravel(),
            true,
        )
        < 1e-12
    )


def chebyshev(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on [0, 1], differentiation matrix (Trefethen 2000) and Clenshaw-Curtis weights."""
    theta = np.pi * np.arange(n + 1) / n
    x = np.cos(theta)
    c = np.where((np.arange(n + 1) % n) == 0, 2.0, 1.0) * (-1.0) ** np.arange(n + 1)
    # x_i - x_j as a product of sines keeps its digits.
    difference = 2 * np.sin((theta[:, None] + theta) / 2) * np.sin((theta - theta[:, None]) / 2)
    D = np.outer(c, 1 / c) / (difference + np.eye(n + 1))
    D -= np.diag(D.sum(1))
    moments = np.array([0.0 if k % 2 else 2 / (1 - k * k) for k in range(n + 1)])
    weights = np.linalg.solve(np.cos(np.outer(np.arange(n + 1), theta)), moments)
    return (1 - x) / 2, -2 * D, weights / 2


@pytest.mark.slow  # a second or more
def test_in_the_continuum_it_is_the_direct_integration():
    # Chebyshev collocation of the equation itself: no cosine and no eigenvalue goes into it.
    x, D, weights = chebyshev(36)

    def right(_: float, u: np.ndarray) -> np.ndarray:
        slope = D @ u
        slope[[0, -1]] = 0  # no flux
        heat = D @ slope
        return heat + (weights @ heat**2) / (weights @ slope**2) * u

    def start(x):
        return np.cos(np.pi * x) / 3 - np.cos(2 * np.pi * x) + 0.7 * np.cos(3 * np.pi * x) + 0.2 * np.cos(5 * np.pi * x)

    t = 0.03
    true = solve_ivp(right, (0, t), start(x), "DOP853", rtol=1e-13, atol=1e-15).y[:, -1]
    domain = ud.pde.Interval(64)
    flow = pde.evolve(domain, lambda x: torch.from_numpy(start(x.numpy())), t)
    # The cosine interpolant of the result, at the collocation points.
    k = np.arange(64)
    at_points = math.sqrt(2) * np.cos(np.outer(x, k) * np.pi) @ flow.modes.numpy()
    assert relative(at_points, true) < 1e-12
    assert float(flow.R) == pytest.approx(weights @ (D @ start(x)) ** 2, rel=1e-12)
    assert float(flow.R) == pytest.approx(weights @ (D @ true) ** 2, rel=1e-12)


def test_cells_tend_to_the_continuum_with_order_2():
    # lambda_k^h = (4 / h^2) sin^2(k pi h / 2) = lambda_k (1 - lambda_k h^2 / 12 + ...)
    def start(x):
        return sum(math.cos(k * k) / k * torch.cos(k * math.pi * x) for k in range(1, 9))

    errors = []
    for n in (64, 256, 1024):
        domains = (ud.pde.Interval(n, 1.0, kind()) for kind in (ud.pde.Spectral, ud.pde.FiniteDifferences))
        smooth, cells = (pde.evolve(domain, start, 0.02, R=11.15) for domain in domains)
        errors.append(float((smooth.values - cells.values).norm() / smooth.values.norm()))
    assert math.log2(errors[0] / errors[1]) / 2 == pytest.approx(2, abs=0.02)
    assert math.log2(errors[1] / errors[2]) / 2 == pytest.approx(2, abs=0.02)


# ---------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize(
    "domain", [ud.pde.Interval(50, 2.0), ud.pde.Rectangle((9, 12), (1.0, 3.0)), ud.pde.Box((4, 5, 6))]
)
def test_the_gradient_energy_is_kept_at_any_time(domain):
    u0 = rough(3, *domain.cells)
    times = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 1.0, 1e3, 1e6, 1e9, 1e12], dtype=F64)
    flow = pde.evolve(domain, u0, times)
    assert flow.values.shape == (9, 3, *domain.cells)
    assert flow.r.shape == flow.growth.shape == (9, 3)
    energy = domain.gradient_energy(flow.modes)
    assert (energy / flow.R - 1).abs().max() < 1e-13
    torch.testing.assert_close(flow.values[0], u0 - u0.mean(tuple(range(1, u0.ndim)), keepdim=True), rtol=0, atol=1e-13)
    assert (flow.r.diff(dim=0) <= 1e-12 * flow.r[1:]).all()
    assert (flow.growth.diff(dim=0) >= 0).all()
    dims = tuple(range(-domain.dimension, 0))
    torch.testing.assert_close(flow.shares.sum(dims), torch.ones(9, 3, dtype=F64), rtol=0, atol=1e-14)
    # At last a steady state of the lowest excited eigenvalue.
    assert (flow.r[-1] / domain.eigenvalues[domain.eigenvalues > 0].min() - 1).abs().max() < 1e-14
    again = pde.evolve(domain, R=float(flow.R[0]), u0=17 * u0[0], times=1e-3)
    torch.testing.assert_close(again.values, flow.values[2, 0], rtol=0, atol=1e-12)


def test_derivatives_in_time_are_those_of_the_equation():
    domain, D = ud.pde.Interval(24, 1.3), 0.7
    modes = domain.to_modes(rough(24))
    eigenvalues = domain.eigenvalues
    for t in (0.0, 0.002, 0.03, 0.4):
        flow = pde.evolve_modes(domain, modes, t, diffusivity=D)

        def parts(t):
            flow = pde.evolve_modes(domain, modes, t, diffusivity=D)
            return flow.modes, flow.shares, flow.r, flow.growth

        time = torch.tensor(t, dtype=F64)
        _, (modes_rate, shares_rate, r_rate, growth_rate) = torch.func.jvp(parts, (time,), (torch.ones_like(time),))
        p, r = flow.shares, flow.r
        variance = (p * (eigenvalues - r) ** 2).sum()
        scale = 1e-12 * float(eigenvalues.max()) * D
        torch.testing.assert_close(modes_rate, D * (r - eigenvalues) * flow.modes, rtol=1e-10, atol=scale)  # (20)
        torch.testing.assert_close(shares_rate, 2 * D * p * (r - eigenvalues), rtol=1e-10, atol=scale)  # replicator
        torch.testing.assert_close(r_rate, -2 * D * variance, rtol=1e-9, atol=scale * float(eigenvalues.max()))
        torch.testing.assert_close(growth_rate, D * r, rtol=1e-11, atol=0)


def test_r_is_the_integral_of_the_squared_laplacian():
    domain = ud.pde.Interval(40)
    flow = pde.evolve(domain, rough(40), [0.0, 1e-3, 0.1])
    laplacian = domain.to_values(-domain.eigenvalues * flow.modes)
    torch.testing.assert_close(flow.r, (laplacian**2).sum(-1) / 40 / flow.R, rtol=1e-12, atol=0)


def test_growth_is_the_integral_of_r():
    domain = ud.pde.Interval(16)
    modes = domain.to_modes(rough(16))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t = torch.from_numpy(0.01 * (nodes + 1) / 2)
    integral = (pde.evolve_modes(domain, modes, t).r * torch.from_numpy(weights)).sum() * 0.005
    torch.testing.assert_close(pde.evolve_modes(domain, modes, 0.01).growth, integral, rtol=1e-12, atol=0)
    # And u_k = a_k exp(rho - lambda_k t), where nothing underflows.
    flow = pde.evolve_modes(domain, modes, 0.01)
    expected = modes * torch.exp(flow.growth - domain.eigenvalues * 0.01)
    torch.testing.assert_close(flow.modes[1:], expected[1:], rtol=1e-13, atol=0)


def test_the_flow_is_a_group_on_the_modes():
    domain = ud.pde.Interval(32)
    modes = domain.to_modes(rough(32))
    there = pde.evolve_modes(domain, modes, 0.03)
    back = pde.evolve_modes(domain, there.modes, -0.03)
    # Each factor e^(lambda t) is known to lambda t eps = 9500 * 0.03 * 1e-16 = 3e-14.
    torch.testing.assert_close(back.modes[1:], modes[1:], rtol=2e-13, atol=0)
    assert float(back.growth + there.growth) == pytest.approx(0, abs=1e-12)
    one = pde.evolve_modes(domain, modes, 0.02)
    torch.testing.assert_close(pde.evolve_modes(domain, one.modes, 0.01).modes, there.modes, rtol=1e-12, atol=0)
    # Far back, the highest mode has all the energy: bounded, where the heat equation alone overflows.
    past = pde.evolve_modes(domain, modes, [-1.0, -1e9])
    assert (past.shares[:, -1] - 1).abs().max() < 1e-15
    assert (domain.gradient_energy(past.modes) / past.R - 1).abs().max() < 1e-13


def test_amplitudes_near_the_end_of_the_floating_point_range():
    domain = ud.pde.Interval(32)
    modes = torch.cos(torch.arange(32, dtype=F64) ** 2)
    modes[1], modes[2] = 1e-280, 1e-100
    times = torch.tensor([1e-3, 1.0, 5.0, 10.0, 14.0, 15.0, 40.0, 1e6], dtype=F64)
    flow = pde.evolve_modes(domain, modes, times)
    assert (domain.gradient_energy(flow.modes) / flow.R - 1).abs().max() < 1e-13
    # u_1 / u_2 = (a_1 / a_2) e^{(lambda_2 - lambda_1) t}; the exponents are near 440, rounded to 440 eps each.
    for t, u in zip(times.tolist(), flow.modes):
        ratio = math.log(1e-280) - math.log(1e-100) + 3 * PI2 * t
        if abs(ratio) < 500:
            assert math.log(u[1]) - math.log(u[2]) == pytest.approx(ratio, abs=1e-12)
    assert flow.modes[-1, 1] == pytest.approx(math.sqrt(float(flow.R) / PI2), rel=1e-15)
    assert (flow.modes[-1, 2:] == 0).all()


# ---------------------------------------------------------------------------------------------- steady states


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_steady_states_stay_when_cleaned(k):
    domain = ud.pde.Interval(64)
    u0 = domain.to_values(ud.pde.Eigenmodes(((k, 1.0),)).modes(domain))  # through the grid, so rounding is in all modes
    flow = pde.evolve(domain, u0, [0.1, 1.0, 1e9], clean=1e-13)
    assert (flow.modes[:, k].abs() * math.sqrt(k * k * PI2) - 1).abs().max() < 1e-14
    assert (flow.shares[:, k] == 1).all()
    assert (domain.gradient_energy(flow.modes) - 1).abs().max() < 1e-14
    left = pde.evolve(domain, u0, 1e9)
    assert (left.shares[k] == 1) == (k == 1)


def test_an_unstable_steady_state_is_left_at_the_predicted_time():
    domain = ud.pde.Interval(64)
    modes = ud.pde.Eigenmodes(((3, 1.0), (1, 1e-6))).modes(domain)  # coefficients of gradient energy
    t = pde.takeover_time(domain, 3, 1, 1e-6)
    assert t == pytest.approx(0.174975, abs=1e-6)  # log(1e6) / (8 pi^2)
    flow = pde.evolve_modes(domain, modes, [0.98 * t, t, 1.02 * t])
    assert flow.shares[1, 1] == pytest.approx(0.5, abs=1e-12)
    assert flow.shares[1, 3] == pytest.approx(0.5, abs=1e-12)
    # The logit of the share moves at 2 sigma: within 2 % of t it goes from 1/e^(0.04 log(1e6)) to its inverse.
    assert (flow.shares[2, 1] / flow.shares[2, 3]).log() == pytest.approx(0.04 * math.log(1e6), rel=1e-9)


# ---------------------------------------------------------------------------------------------- software


def test_a_batch_is_its_parts():
    domain = ud.pde.Rectangle((6, 7))
    u0 = rough(2, 3, 6, 7)
    u0[0, 1] *= 1e-3
    times = torch.tensor([[0.0, 0.01], [0.1, 2.0]], dtype=F64)
    R = torch.tensor([1.0, 2.0, 3.0])
    flow = pde.evolve(domain, u0, times, R=R)
    assert flow.values.shape == (2, 2, 2, 3, 6, 7)
    assert flow.growth.shape == (2, 2, 2, 3)
    for i in range(2):
        for j in range(3):
            alone = pde.evolve(domain, u0[i, j], float(times[1, 0]), R=float(R[j]))
            # A product with a matrix may be summed in another order for a batch: 1e-15 of values of order 1.
            torch.testing.assert_close(alone.values, flow.values[1, 0, i, j], rtol=0, atol=1e-14)
            torch.testing.assert_close(alone.growth, flow.growth[1, 0, i, j], rtol=1e-14, atol=0)


def test_gradients():
    domain = ud.pde.Interval(7, 0.9)
    u0 = rough(2, 7).requires_grad_()
    t = torch.tensor([0.0, 0.01, 0.3], dtype=F64, requires_grad=True)
    R = torch.tensor(2.0, dtype=F64, requires_grad=True)

    def results(u0, t, R):
        flow = pde.evolve(domain, u0, t.abs(), R=R)
        return flow.values, flow.growth, flow.r, flow.shares

    t_inner = t[1:].detach().requires_grad_()  # |t| has a kink at 0
    assert torch.autograd.gradcheck(results, (u0, t_inner, R))
    # A mode that is 0 has a derivative all the same, e^{rho - lambda t}.
    modes = domain.to_modes(rough(7))
    modes[[2, 4]] = 0
    modes = modes.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: pde.evolve_modes(domain, a, [0.0, 0.02]).modes, modes)
    # However far: finite, not NaN.
    pde.evolve_modes(domain, modes, [1e3, 1e12]).modes.sum().backward()
    assert modes.grad.isfinite().all()


def test_the_mean_is_removed_or_kept():
    domain = ud.pde.Interval(10)
    u0 = rough(10) + 3
    assert float(pde.evolve(domain, u0, 5.0).values.mean()) == pytest.approx(0, abs=1e-15)
    kept = pde.evolve(domain, u0, 5.0, keep_mean=True)
    assert float(kept.values.mean()) == pytest.approx(3, rel=1e-14)
    assert float(domain.gradient_energy(kept.modes) / kept.R) == pytest.approx(1, abs=1e-14)
    assert float(kept.shares.sum()) == pytest.approx(1, abs=1e-14)
    # The mean has no gradient and so is none of the small modes that `clean` drops.
    cleaned = pde.evolve(domain, u0, 5.0, keep_mean=True, clean=1e-13)
    assert float(cleaned.values.mean()) == pytest.approx(3, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"u0": torch.ones(8, dtype=F64)}, "u0: the field is constant"),
        ({"u0": torch.stack([rough(8), torch.zeros(8, dtype=F64)])}, "number 1 of the batch"),
        ({"u0": torch.full((8,), math.nan, dtype=F64)}, "u0 must be finite"),
        ({"times": -1.0}, "times must be .* got -1.0"),
        ({"times": [0.0, math.inf]}, "times must be finite"),
        ({"diffusivity": 0.0}, "diffusivity must be .* got 0.0"),
        ({"clean": 1.0}, "clean must be .* got 1.0"),
        ({"R": -1.0}, "R must be .* got -1.0"),
        ({"R": torch.ones(3)}, r"R must be .* got \(3,\)"),
        ({"R": torch.ones(2, 3), "u0": rough(3, 8)}, r"R must be .* got \(2, 3\)"),
        ({"times": []}, "times must be at least one time"),
        ({"u0": rough(9)}, r"u0 must be a tensor with last axes \(8,\)"),
        ({"u0": lambda x: 2.0}, "u0: the field is constant"),
        ({"u0": lambda x: x[1:]}, "u0 must be a tensor with last axes"),
        ({"u0": 1e200 * rough(8)}, "R: the gradient energy is outside the range of torch.float64"),
        ({"u0": 1e-200 * rough(8)}, "R: the gradient energy is outside the range of torch.float64"),
        ({"u0": "field"}, "u0 must be a tensor or an array or a function, got 'field'"),
    ],
)
def test_mistakes(change, said):
    with pytest.raises(ParameterError, match=said):
        pde.evolve(ud.pde.Interval(8), **{"u0": rough(8), "times": 0.1, **change})


def test_whole_numbers_and_arrays_are_fields():
    domain, u0 = ud.pde.Interval(8), torch.arange(8) ** 2
    expected = pde.evolve(domain, u0.double(), 0.01).values
    for given in (u0, u0.to(torch.uint8), u0.numpy(), u0.double().numpy(), lambda x: u0.numpy()):
        assert torch.equal(pde.evolve(domain, given, 0.01).values, expected)
    modes = domain.to_modes(u0.double())
    assert torch.equal(pde.evolve_modes(domain, modes.numpy(), 0.01).values, expected)
    # One number in brackets is one number; and with an R the size of a field is not limited by its square.
    for size in (1e-200, 1.0, 1e200):
        found = pde.evolve(domain, size * u0.double(), 0.01, R=torch.tensor([2.0]))
        assert found.values.shape == (8,)
        assert float(domain.gradient_energy(found.modes)) == pytest.approx(2, rel=1e-13)


def test_a_constant_through_a_transform_is_still_constant():
    # Rounding of a constant field leaves gradients of 1e-16, which must not be blown up to R.
    with pytest.raises(ParameterError, match="constant"):
        pde.evolve(ud.pde.Interval(100), torch.full((100,), 0.1, dtype=F64), 1.0)
    with pytest.raises(ParameterError, match="with last axes"):
        pde.evolve_modes(ud.pde.Interval(8), torch.ones(9, dtype=F64), 1.0)
