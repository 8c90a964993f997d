"""Growth rates of disturbances against the Jacobian of the equation, and what an unstable steady state does."""

from __future__ import annotations

import math

import pytest
import torch

import unidiff as ud
from unidiff import pde
from unidiff.errors import ParameterError

PI2 = math.pi**2


@pytest.mark.parametrize(
    "domain",
    [ud.pde.Interval(12, 1.5), ud.pde.Rectangle((5, 6), (1.0, 2.2), ud.pde.FiniteDifferences()), ud.pde.Box((3, 4, 3))],
)
def test_rates_are_the_eigenvalues_of_the_jacobian(domain):
    eigenvalues = domain.eigenvalues.flatten()
    for k in (1, 2, 7):
        found = pde.stability(domain, k, diffusivity=0.3)
        steady = (found.amplitude(11.15) * domain.eigenmode(k)).flatten()
        assert float(domain.gradient_energy(steady.reshape(domain.eigenvalues.shape))) == pytest.approx(11.15)

        def right(u):  # equation (20) with r = integral (Laplace u)^2 / integral |grad u|^2
            r = (eigenvalues**2 * u**2).sum() / (eigenvalues * u**2).sum()
            return 0.3 * (r - eigenvalues) * u

        jacobian = torch.func.jacrev(right)(steady)
        torch.testing.assert_close(right(steady), torch.zeros_like(steady), rtol=0, atol=1e-12 * float(steady.max()))
        # In modes the Jacobian is diagonal; the direction phi_k itself, in which only the size changes, is neutral.
        torch.testing.assert_close(
            jacobian, torch.diag(found.rates.flatten()), rtol=1e-12, atol=1e-12 * float(eigenvalues.max())
        )
        assert found.unstable == int(((found.rates > 0).flatten() & (eigenvalues > 0)).sum())


def test_the_interval():
    domain = ud.pde.Interval(64)
    for k in (1, 2, 5):
        found = pde.stability(domain, k)
        assert found.eigenvalue == pytest.approx(k * k * PI2, rel=1e-15)
        assert (found.unstable, found.neutral) == (k - 1, 0)
        assert found.amplitude(2.0) == pytest.approx(math.sqrt(2 / PI2) / k)
        assert float(found.rates[0]) == pytest.approx(k * k * PI2)


def test_equal_eigenvalues_are_neutral():
    square = ud.pde.Rectangle((8, 8))
    assert [pde.stability(square, k).neutral for k in (1, 2, 3, 4)] == [1, 1, 0, 1]
    assert [pde.stability(square, k).unstable for k in (1, 2, 3, 4)] == [0, 0, 2, 3]
    # A sum of the two lowest modes is a steady state as well.
    both = ud.pde.Eigenmodes(((1, 0.6), (2, 0.8))).modes(square)
    torch.testing.assert_close(pde.evolve_modes(square, both, 1e9).modes, both, rtol=1e-15, atol=0)


def test_a_disturbance_grows_at_its_rate_for_ever():
    domain = ud.pde.Interval(32)
    found = pde.stability(domain, 4)
    modes = ud.pde.Eigenmodes(((4, 1.0), (2, 1e-3), (5, 1e-2))).modes(domain)
    flow = pde.evolve_modes(domain, modes, [0.0, 0.01, 0.1, 0.5])
    for j in (2, 5):
        ratio = flow.modes[:, j] / flow.modes[:, 4]
        expected = (modes[j] / modes[4]) * torch.exp(found.rates[j] * flow.times)
        torch.testing.assert_close(ratio, expected, rtol=1e-12, atol=0)


def test_takeover_time():
    domain = ud.pde.Rectangle((16, 16), (1.0, 1.3))
    t = pde.takeover_time(domain, 5, 1, 1e-4, diffusivity=0.1)
    modes = ud.pde.Eigenmodes(((5, 1.0), (1, 1e-4))).modes(domain)
    shares = pde.evolve_modes(domain, modes, t, diffusivity=0.1).shares.flatten()[domain.order()]
    assert shares[5] == pytest.approx(0.5, abs=1e-12)
    assert shares[1] == pytest.approx(0.5, abs=1e-12)


def test_mistakes():
    square = ud.pde.Rectangle((8, 8))
    for call, said in (
        (lambda: pde.stability(square, 0), "k must be an integer from 1 to 63"),
        (lambda: pde.stability(square, 64), "k must be .* got 64"),
        (lambda: pde.stability(square, 1, diffusivity=-1.0), "diffusivity"),
        (lambda: pde.takeover_time(square, 2, 1, 1e-3), "j: mode 1 never takes over from mode 2"),
        (lambda: pde.takeover_time(square, 1, 4, 1e-3), "j: mode 4 never"),
        (lambda: pde.takeover_time(square, 4, 1, 0.0), "ratio must be .* got 0.0"),
        (lambda: pde.stability(square, 3).amplitude(0.0), "R must be .* got 0.0"),
        (lambda: ud.pde.Eigenmodes(()), "terms"),
        (lambda: ud.pde.Eigenmodes(((0, 1.0),)), "terms must be .* got 0"),
        (lambda: ud.pde.Eigenmodes(((1, 0.0),)), "terms"),
        (lambda: ud.pde.Eigenmodes(((99, 1.0),)).modes(square), "terms must be .* got 99"),
        (lambda: ud.pde.RandomField(-1), "seed must be .* got -1"),
    ):
        with pytest.raises(ParameterError, match=said):
            call()
