"""Two methods of equal steps for the renormalised heat equation: an exponential one and an implicit one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import require_whole
from unidiff.pde.domain import Domain
from unidiff.pde.field import field_modes
from unidiff.pde.simulators import Simulator

__all__ = ["ETDRK4", "SDIRK2"]


@dataclass(frozen=True)
class ETDRK4(Simulator):
    """Exponential Runge-Kutta method of order 4 (Cox & Matthews 2002) on the modes, rescaled to R after each step.

    The linear part -lambda_k u_k is exact, r(u) u is the nonlinear part. The coefficients are means over a circle in
    the complex plane, which avoids cancellation (Kassam & Trefethen 2005).

    Args:
        steps: Equal steps from 0 to the last time, at least 1; each output time ends one, so there may be more.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        eigenvalues = domain.eigenvalues.flatten()
        u = field_modes(domain, u0).flatten()
        u[eigenvalues == 0] = 0
        R = (eigenvalues * u**2).sum()

        def nonlinear(u: Tensor) -> Tensor:
            energy = eigenvalues * u**2
            return (eigenvalues * energy).sum() / energy.sum() * u

        states = []
        for count, h in _plan(times, self.steps):
            whole, half, q, f1, f2, f3 = _coefficients(-h * eigenvalues, h)
            for _ in range(count):
                n_u = nonlinear(u)
                a = half * u + q * n_u
                n_a = nonlinear(a)
                b = half * u + q * n_a
                n_b = nonlinear(b)
                c = half * a + q * (2 * n_b - n_u)
                u = whole * u + f1 * n_u + 2 * f2 * (n_a + n_b) + f3 * nonlinear(c)
                u = u * (R / (eigenvalues * u**2).sum()).sqrt()
            states.append(u)
        return domain.to_values(torch.stack(states).reshape(-1, *domain.eigenvalues.shape))


@dataclass(frozen=True)
class SDIRK2(Simulator):
    """Implicit steps of the heat equation, L-stable of order 2 (Alexander 1977), rescaled to R after each.

    One sparse factorisation for all equal steps, so it works on any mesh. Rescaling commutes with the heat flow, so the
    only error is that of the heat steps.

    Args:
        steps: Equal steps from 0 to the last time, at least 1; each output time ends one, so there may be more.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        from scipy.sparse import csc_array, eye_array
        from scipy.sparse.linalg import splu

        laplacian = domain.laplacian()
        u = u0.flatten().numpy()
        R = -u @ (laplacian @ u)
        gamma = 1 - 1 / math.sqrt(2)
        states = []
        for count, h in _plan(times, self.steps):
            factors = splu(csc_array(eye_array(u.size) - gamma * h * laplacian)) if count else None
            for _ in range(count):
                assert factors is not None
                first = factors.solve(laplacian @ u)
                second = factors.solve(laplacian @ (u + (1 - gamma) * h * first))
                u = u + h * ((1 - gamma) * first + gamma * second)
                u = u - u.mean()
                u = u * np.sqrt(R / -(u @ (laplacian @ u)))
            states.append(u)
        return torch.from_numpy(np.stack(states)).reshape(-1, *u0.shape)


def _plan(times: Tensor, steps: int) -> list[tuple[int, float]]:
    """Number and length of the steps from each time to the next; none longer than last / steps."""
    longest = float(times[-1]) / steps
    gaps = times.diff(prepend=torch.zeros(1, dtype=times.dtype)).tolist()
    counts = [math.ceil(gap / longest * (1 - 1e-12)) if gap > 0 else 0 for gap in gaps]
    return [(count, gap / count if count else 0.0) for count, gap in zip(counts, gaps)]


def _coefficients(z: Tensor, h: float) -> tuple[Tensor, ...]:
    """exp(z), exp(z/2) and the weights of the stages for z = -h lambda, (K)."""
    points = 32
    angle = math.pi * (torch.arange(points, dtype=torch.float64) + 0.5) / points
    w = z[:, None] + torch.polar(torch.ones_like(angle), angle)  # the lower half of the circle is the conjugate
    e = w.exp()

    def mean(values: Tensor) -> Tensor:
        return h * values.mean(1).real

    q = mean(((w / 2).exp() - 1) / w)
    f1 = mean((-4 - w + e * (4 - 3 * w + w**2)) / w**3)
    f2 = mean((2 + w + e * (-2 + w)) / w**3)
    f3 = mean((-4 - 3 * w - w**2 + e * (4 - w)) / w**3)
    return z.exp(), (z / 2).exp(), q, f1, f2, f3
