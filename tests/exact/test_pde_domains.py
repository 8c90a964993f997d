"""Domains: orthonormal modes, eigenvalues of the literature, and the equation on masks against a direct integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import jnp_zeros

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError

F64 = torch.float64
L_SHAPE = ((0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0), (1.0, 2.0), (0.0, 2.0))
# Lowest eigenvalues without flux on three unit squares: the two-dimensional Maxwell benchmark of M. Dauge. The third
# and fourth, cos(pi x) and cos(pi y), are known.
DAUGE = [1.47562182408, 3.53403136678, math.pi**2, math.pi**2, 11.3894793979]


def disk(n: int, modes: int = 8) -> ud.pde.Mask:
    return ud.pde.Mask.where(lambda x, y: (x - 1) ** 2 + (y - 1) ** 2 < 1, (n, n), (2.0, 2.0), modes)


DOMAINS = [
    ud.pde.Interval(9, 2.0),
    ud.pde.Rectangle((5, 8), (1.0, 3.0)),
    ud.pde.Box((3, 4, 5), (1.0, 2.0, 0.5), ud.pde.FiniteDifferences()),
    disk(16, 30),
    ud.pde.Polygon(L_SHAPE, 24, 40),
    ud.pde.Polygon(((0, 0), (1, 0), (0, 1)), 8, 28),
]


def cell(domain) -> float:
    """Area of a cell, or its length or volume, found from the points."""
    distinct = [coordinate.flatten().unique() for coordinate in domain.points]
    return math.prod(float((values[-1] - values[0]) / (len(values) - 1)) for values in distinct)


def every(name, values):
    return pytest.mark.parametrize(name, values, ids=[f"{type(value).__name__}{i}" for i, value in enumerate(values)])


@every("domain", DOMAINS)
def test_modes_are_orthonormal_and_are_eigenmodes(domain):
    eigenvalues = domain.eigenvalues
    count = eigenvalues.numel()
    basis = domain.to_values(torch.eye(count, dtype=F64).reshape(count, *eigenvalues.shape)).reshape(count, -1)
    gram = basis @ basis.T * cell(domain)
    torch.testing.assert_close(gram, torch.eye(count, dtype=F64), rtol=0, atol=1e-11)
    # The constant: eigenvalue 0, and value 1 / sqrt(area).
    assert eigenvalues.flatten()[0] == 0
    torch.testing.assert_close(basis[0], torch.full_like(basis[0], 1 / math.sqrt(cell(domain) * basis.shape[1])))
    assert (eigenvalues.flatten()[1:] > 0).all()
    assert domain.order()[0] == 0
    modes = torch.randn(2, *eigenvalues.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(domain.to_modes(domain.to_values(modes)), modes, rtol=0, atol=1e-11)
    if getattr(domain, "discretization", None) != ud.pde.Spectral():
        applied = (domain.laplacian() @ basis.T.numpy()).T
        scale = float(eigenvalues.max())
        expected = -(eigenvalues.flatten()[:, None] * basis).numpy()
        np.testing.assert_allclose(applied, expected, rtol=0, atol=1e-8 * scale)


@every("domain", DOMAINS)
def test_a_projection_is_one_and_images_put_values_back(domain):
    u = torch.randn(3, *domain.points[0].shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    once = domain.to_values(domain.to_modes(u))
    torch.testing.assert_close(domain.to_values(domain.to_modes(once)), once, rtol=0, atol=1e-11)
    image = domain.image(u)
    assert image.ndim == 1 + len(domain.points)
    assert torch.equal(image[~image.isnan()].reshape(3, -1), u.reshape(3, -1))
    flow = pde.evolve(domain, u.float(), [0.0, 0.01])
    assert flow.values.dtype == torch.float32
    assert (domain.gradient_energy(flow.modes) / flow.R - 1).abs().max() < 1e-5


@pytest.mark.parametrize("ratio", [1.0, 0.37, 2.5])
def test_rectangles(ratio):
    # pi^2 (m^2 / a^2 + n^2 / b^2); the 5-point Laplacian tends to it with order 2 from below.
    sides = (1.3, 1.3 * ratio)
    pairs = [(m, n) for m in range(40) for n in range(40)]
    expected = sorted(math.pi**2 * ((m / sides[0]) ** 2 + (n / sides[1]) ** 2) for m, n in pairs)[:12]
    smooth = ud.pde.Rectangle((40, 40), sides)
    found = smooth.eigenvalues.flatten()[smooth.order()[:12]]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)
    cells = ud.pde.Rectangle((40, 40), sides, ud.pde.FiniteDifferences())
    coarse = cells.eigenvalues.flatten()[cells.order()[:12]].numpy()
    # (2 / h)^2 sin^2(w h / 2) is above w^2 (1 - w^2 h^2 / 12).
    h = max(sides) / 40
    assert (coarse[1:] <= np.array(expected[1:]) * (1 + 1e-14)).all()
    assert (1 - coarse[1:] / expected[1:] <= np.array(expected[1:]) * h**2 / 12).all()


def test_a_full_mask_is_the_rectangle():
    rectangle = ud.pde.Rectangle((26, 20), (1.0, 1.7), ud.pde.FiniteDifferences())
    mask = ud.pde.Mask(np.ones((26, 20)), (1.0, 1.7), 50)
    expected = rectangle.eigenvalues.flatten()[rectangle.order()[:50]]
    torch.testing.assert_close(mask.eigenvalues, expected, rtol=1e-10, atol=1e-10)
    polygon = ud.pde.Polygon(((0, 0), (1, 0), (1, 1.7), (0, 1.7)), 34, 50)
    same = ud.pde.Rectangle((20, 34), (1.0, 1.7), ud.pde.FiniteDifferences())
    assert polygon.points[0].shape == (20 * 34,)
    expected = same.eigenvalues.flatten()[same.order()[:50]]
    torch.testing.assert_close(polygon.eigenvalues, expected, rtol=1e-10, atol=1e-10)


def test_the_l_shape():
    # The corner gives lambda_1 an error of order h^(4/3), the smooth modes of order h^2.
    errors = []
    for cells in (32, 64):
        found = ud.pde.Polygon(L_SHAPE, cells, 8).eigenvalues[1:6].numpy()
        errors.append(np.abs(found / DAUGE - 1))
    assert errors[1].max() < 3e-3
    orders = np.log2(errors[0] / errors[1])
    np.testing.assert_allclose(orders, [4 / 3, 2, 2, 2, 2], atol=0.1)


def test_the_disk():
    # J_m'(j'_{m,n}) = 0: lambda = j'^2, twice for m > 0. The boundary is a staircase: an error of order h.
    expected = sorted(float(zero) ** 2 for m in range(5) for zero in jnp_zeros(m, 3) for _ in range(1 if m == 0 else 2))
    found = disk(96).eigenvalues[1:7].numpy()
    assert np.abs(found / expected[:6] - 1).max() < 2 / 96


@every("domain", [ud.pde.Polygon(L_SHAPE, 8, 48), disk(9, 69)])
def test_on_a_mask_it_is_the_direct_integration(domain):
    # All modes, so nothing is lost in the projection.
    assert domain.modes == domain.points[0].numel()
    u0 = torch.randn(domain.modes, dtype=F64, generator=torch.Generator().manual_seed(4))
    true = pde.MethodOfLines("DOP853", 1e-13).simulate(domain, u0, [0.02, 0.2])
    found = pde.evolve(domain, u0, [0.02, 0.2]).values
    assert ((found - true).norm(dim=1) / true.norm(dim=1)).max() < 1e-12


def test_fewer_modes_mollify():
    # What is left out decays first: the difference falls like e^{-(lambda_K - lambda_1) t}, K the first left out, once
    # phi_1 has the energy; before, a little slower.
    few, many = ud.pde.Polygon(L_SHAPE, 16, 20), ud.pde.Polygon(L_SHAPE, 16, 192)
    u0 = many.to_values(ud.pde.Broadband().modes(many))
    times = [0.5, 0.6]
    a, b = (pde.evolve(domain, u0, times, R=1.0).values for domain in (few, many))
    error = ((a - b).norm(dim=1) / b.norm(dim=1)).log()
    rate = float(many.eigenvalues[20] - many.eigenvalues[1])
    assert float(error[1] - error[0]) < -0.8 * rate * 0.1


def test_the_same_every_time():
    first, second = disk(40, 12), disk(40, 12)
    assert first == second
    assert hash(first) == hash(second)
    assert torch.equal(first.to_values(first.eigenmode(5)), second.to_values(second.eigenmode(5)))
    assert first.field(lambda x, y: x + y).shape == first.points[0].shape


HALVES = np.ones((5, 5))
HALVES[:, 2] = 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ud.pde.Mask(np.zeros((4, 4))), "inside: no cells inside"),
        (lambda: ud.pde.Mask(HALVES, modes=4), "inside: the domain has 2 connected components .of 10, 10 cells"),
        (lambda: ud.pde.Mask(np.eye(3), modes=2), "has 3 connected components"),
        (lambda: ud.pde.Mask(np.ones((3, 3)), modes=10), "modes must be an integer from 2 to 9"),
        (lambda: ud.pde.Mask(np.ones((3, 3)), modes=1), "modes must be an integer from 2 to [0-9]+, got 1"),
        (lambda: ud.pde.Mask(np.ones(3)), "inside must be an array"),
        (lambda: ud.pde.Mask([[True], [True, False]]), "inside: its rows are of different lengths"),
        (lambda: ud.pde.Mask(np.ones((3, 3)), (1.0, -1.0), 4), r"sides must be two numbers > 0, got \(1.0, -1.0\)"),
        (lambda: ud.pde.Mask.where(lambda x, y: x < 0, (4, 4)), "inside: no cells"),
        (lambda: ud.pde.Polygon(((0, 0), (1, 0))), "vertices"),
        (lambda: ud.pde.Polygon(((0, 0), (1, 0), (2, 0))), "vertices must be corners that do not lie on one line"),
        (lambda: ud.pde.Polygon(((0, 0), (1, 0), (math.nan, 1))), "vertices"),
        (lambda: ud.pde.Polygon(L_SHAPE, 4), "modes must be an integer from 2 to 12"),
        (
            lambda: ud.pde.Polygon(((0, 0), (1, 1), (2, 2.0)), 10),
            "vertices must be corners that do not lie on one line",
        ),
        (
            lambda: ud.pde.Polygon(((0.1, 0.1), (0.7, 0.3), (0.4, 0.2))),
            "vertices must be corners that do not lie on one line",
        ),
        (
            lambda: pde.evolve(disk(9), torch.ones(9, 9), 0.1),
            r"u0 must be a tensor with last axes \(69,\), got \(9, 9\)",
        ),
        (lambda: disk(9).to_modes(torch.ones(9, 9)), r"values must be .* got \(9, 9\)"),
        (lambda: disk(9).image(torch.ones(9, 9)), r"values must be .* got \(9, 9\)"),
        (lambda: ud.pde.Interval(2**27), "cells"),
    ],
)
def test_mistakes(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


def test_a_domain_of_many_parts_tells_how_large_they_are():
    board = np.indices((6, 6)).sum(0) % 2
    with pytest.raises(ParameterError, match=r"18 connected components \(of 1, 1, 1, 1, 1, ... cells"):
        ud.pde.Mask(board, modes=2)
