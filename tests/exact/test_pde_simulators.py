"""Simulators against the exact solution: errors, orders of convergence, and the instability of equation (22)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError

CELLS = ud.pde.Interval(32, 1.0, ud.pde.FiniteDifferences())


def start(x):
    return sum(math.cos(k * k) / (k * math.pi) * torch.cos(k * math.pi * x) for k in range(1, 9))


def error(simulator, domain=CELLS, times=(0.004, 0.02)):
    u0 = domain.field(start)
    exact = pde.evolve(domain, u0, list(times)).values
    return float((simulator.simulate(domain, u0, list(times)) - exact).norm(dim=1).max() / exact.norm(dim=1).min())


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5)])
def test_the_sparse_laplacian_has_the_eigenvalues_of_the_domain(shape):
    cls = [ud.pde.Interval, ud.pde.Rectangle, ud.pde.Box][len(shape) - 1]
    sides = tuple(1.0 + 0.3 * i for i in range(len(shape)))
    domain = cls(shape, sides, ud.pde.FiniteDifferences())
    matrix = domain.laplacian().toarray()
    assert np.array_equal(matrix, matrix.T)
    u = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_modes = domain.to_values(-domain.eigenvalues * domain.to_modes(u))
    scale = float(domain.eigenvalues.max())
    np.testing.assert_allclose(matrix @ u.flatten().numpy(), by_modes.flatten().numpy(), rtol=0, atol=1e-14 * scale)
    with pytest.raises(ParameterError, match=r"discretization must be .* got Spectral"):
        cls(shape, sides).laplacian()


@pytest.mark.parametrize(
    ("simulator", "bound"),
    [
        # Adaptive methods: the error is near rtol, for the Rayleigh form neither amplifies nor forgets.
        (pde.MethodOfLines("RK45", 1e-8), 1e-7),
        (pde.MethodOfLines("DOP853", 1e-12), 1e-11),
        (pde.MethodOfLines("Radau", 1e-8), 1e-7),
        (pde.MethodOfLines("BDF", 1e-8), 1e-6),
        (pde.MethodOfLines("LSODA", 1e-8), 1e-6),
        (pde.TorchMethodOfLines("dopri5", 1e-8), 1e-7),
        (pde.TorchMethodOfLines("dopri8", 1e-8), 1e-8),  # steps end at each output time: interpolated 2e-8
    ],
    ids=lambda value: getattr(value, "method", ""),
)
def test_adaptive_methods_find_the_exact_solution(simulator, bound):
    assert error(simulator) < bound


@pytest.mark.parametrize(("cls", "order", "steps"), [(pde.ETDRK4, 4, 50), (pde.SDIRK2, 2, 200)])
def test_orders_of_convergence(cls, order, steps):
    errors = [error(cls(steps * factor)) for factor in (1, 2, 4)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_exponential_method_is_exact_on_a_steady_state():
    u0 = CELLS.to_values(CELLS.eigenmode(1))
    found = pde.ETDRK4(10).simulate(CELLS, u0, [0.1])
    torch.testing.assert_close(found[0], u0, rtol=0, atol=1e-13)


@pytest.mark.slow  # many steps
def test_long_runs_keep_gradient_energy_and_mean():
    u0 = CELLS.field(start) + 5
    times = [0.0, 0.5, 2.0]
    exact = pde.evolve(CELLS, u0, times)
    R = float(exact.R)
    for simulator in (pde.MethodOfLines("RK45", 1e-9), pde.SDIRK2(2000), pde.ETDRK4(5000)):
        found = simulator.simulate(CELLS, u0, times)
        energy = CELLS.gradient_energy(CELLS.to_modes(found))
        assert (energy / R - 1).abs().max() < 1e-12
        assert found.mean(1).abs().max() < 1e-14 * 5
        assert (found[-1] - exact.values[-1]).norm() / exact.values[-1].norm() < 1e-8


def test_meshes_in_two_dimensions():
    domain = ud.pde.Rectangle((9, 7), (1.0, 0.8), ud.pde.FiniteDifferences())
    u0 = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    exact = pde.evolve(domain, u0, [0.01]).values
    for simulator, bound in ((pde.MethodOfLines("DOP853", 1e-11), 1e-9), (pde.SDIRK2(3000), 1e-5)):
        found = simulator.simulate(domain, u0, 0.01)
        assert found.shape == (1, 9, 7)
        assert (found - exact).norm() / exact.norm() < bound


@pytest.mark.slow  # 2 s
def test_equation_22_amplifies_every_defect():
    # (q - 1) / q grows like e^(2 rho): between two times, while q is near 1, by e^(2 (rho_2 - rho_1)).
    u0 = CELLS.field(start)
    times = [0.3, 0.6, 1.0, 2.0]
    exact = pde.evolve(CELLS, u0, times)
    values, q = pde.equation_22_with_frozen_R(CELLS, u0, times, rtol=1e-7)
    defect = ((q - 1) / q).abs().log()
    grown = (defect[1] - defect[0], defect[2] - defect[1])
    rho = 2 * exact.growth
    # New defects of later steps come in beside the first one's growth: 10 % of an exponent of 6 and of 8.
    assert float(grown[0]) == pytest.approx(float(rho[1] - rho[0]), rel=0.1)
    assert float(grown[1]) == pytest.approx(float(rho[2] - rho[1]), rel=0.1)
    assert (
        float((values[-1] - exact.values[-1]).norm() / exact.values[-1].norm()) > 0.9 or not values[-1].isfinite().all()
    )
    # The Rayleigh form with the same method and tolerance stays near the truth.
    good = pde.MethodOfLines("RK45", 1e-7).simulate(CELLS, u0, times)
    assert ((good - exact.values).norm(dim=1) / exact.values.norm(dim=1)).max() < 1e-6


def test_a_defect_grows_as_the_formula_says():
    # Started from c u_0, with the R of u_0: a defect q(0) = c^2 put in by hand.
    domain = ud.pde.Interval(8, 1.7, ud.pde.FiniteDifferences())
    u0 = domain.field(lambda x: torch.cos(math.pi * x / 1.7) + 0.3 * torch.cos(2 * math.pi * x / 1.7))
    times = [0.0, 0.15, 0.3, 0.6]
    # rho along the path of (22) itself: nu depends on the shape only, and the shape is that of the exact solution.
    exact = pde.evolve(domain, u0, times)
    values, q = pde.equation_22_with_frozen_R(
        domain, math.sqrt(1 - 1e-4) * u0, times, R=float(exact.R), method="DOP853", rtol=1e-13
    )
    first = -1e-4 / (1 - 1e-4)
    # dq/dt = 2 nu q (q - 1) gives d/dt log |(q - 1) / q| = 2 nu exactly. A step's relative error of some 1e-13 is 1e-9
    # of the defect, and grows with it; ten of them.
    torch.testing.assert_close((q - 1) / q, first * (2 * exact.growth).exp(), rtol=1e-8, atol=0)
    # The shape does not see the defect: u = sqrt(q) times the exact solution.
    torch.testing.assert_close(values, q.sqrt()[:, None] * exact.values, rtol=0, atol=1e-10)


@pytest.mark.parametrize("times", [[], [0.1, 0.1], [-0.1, 0.2], [0.2, 0.1]])
def test_mistakes(times):
    with pytest.raises(ParameterError, match="times"):
        pde.SDIRK2(3).simulate(CELLS, CELLS.field(start), times)


def test_mistakes_of_methods():
    for make, said in (
        (lambda: pde.MethodOfLines("RK4"), "method must be .* got 'RK4'"),
        (lambda: pde.MethodOfLines(rtol=0.0), "rtol"),
        (lambda: pde.ETDRK4(0), "steps"),
        (
            lambda: pde.SDIRK2(1).simulate(ud.pde.Interval(8), torch.arange(8.0), 1.0),
            r"discretization must be .* got Spectral\(\)",
        ),
    ):
        with pytest.raises(ParameterError, match=said):
            make()


SIMULATORS = [
    *(pde.MethodOfLines(method, 1e-6) for method in ("RK45", "DOP853", "Radau")),
    pde.TorchMethodOfLines("dopri5", 1e-6),
    pde.ETDRK4(5),
    pde.SDIRK2(5),
]


def equation_22(domain, u0, times):
    return pde.equation_22_with_frozen_R(domain, u0, times, rtol=1e-6)[0]


@pytest.mark.parametrize("run", [*(s.simulate for s in SIMULATORS), equation_22])
def test_a_field_is_checked_before_it_is_integrated(run):
    # Unchecked, a constant made half of these methods take ever smaller steps, without end.
    nan = CELLS.field(start)
    nan[3] = math.nan
    for u0, said in (
        (torch.full((32,), 0.1, dtype=torch.float64), "u0: the field is constant"),
        (lambda x: 0.1 + 0 * x, "u0: the field is constant"),
        (nan, "u0 must be finite"),
        (torch.ones(31), r"u0 must be a tensor with last axes \(32,\)"),
        (torch.tensor(1.0), r"u0 must be a tensor with last axes \(32,\)"),
        (CELLS.field(start).expand(2, 32), "u0 must be one field"),
    ):
        with pytest.raises(ParameterError, match=said):
            run(CELLS, u0, [0.01])
    with pytest.raises(ParameterError, match="times"):
        run(CELLS, start, [0.01, math.inf])
    # A function is a field, and the equation is homogeneous of degree 1, also where squares leave the range of floats.
    found = run(CELLS, start, [0.0, 0.001])
    for size in (1e-200, 1e200):
        again = run(CELLS, size * CELLS.field(start), [0.0, 0.001])
        torch.testing.assert_close(again / size, found, rtol=1e-9, atol=1e-9)


def test_the_exponential_method_refuses_a_field_without_part_in_its_modes():
    fine, coarse = (ud.pde.Mask(np.ones((12, 8)), modes=modes) for modes in (60, 4))
    u0 = fine.to_values(fine.eigenmode(40))
    with pytest.raises(ParameterError, match="u0: the field is constant"):
        pde.ETDRK4(5).simulate(coarse, u0, 0.1)
    assert pde.SDIRK2(5).simulate(coarse, u0, 0.1).isfinite().all()  # it lives on the cells and needs no modes
