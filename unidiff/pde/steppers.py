"""Two methods of equal steps for the renormalised heat equation: an exponential one and an implicit one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import require_whole
from unidiff.pde.domain import Domain
from unidiff.pde.field import field_modes
from unidiff.pde.simulators import Simulator, project

__all__ = ["ETDRK4", "SDIRK2"]


@dataclass(frozen=True)
class _EqualSteps(Simulator):
    """A method of equal steps.

    Args:
        steps: Equal steps from 0 to the last time, at least 1; each output time ends one, so there may be more.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)

    def _states(self, u: Any, times: Tensor, prepare: Callable[[float], Any], step: Callable[..., Any]) -> list[Any]:
        """States at the times, by steps u -> step(u, *prepare(h)) of a length h <= last / steps."""
        longest, states = float(times[-1]) / self.steps, []
        for gap in times.diff(prepend=torch.zeros(1, dtype=times.dtype)).tolist():
            if gap > 0:
                count = math.ceil(gap / longest * (1 - 1e-12))
                coefficients = prepare(gap / count)
                for _ in range(count):
                    u = step(u, *coefficients)
            states.append(u)
        return states


@dataclass(frozen=True)
class ETDRK4(_EqualSteps):
    """Exponential Runge-Kutta method of order 4 (Cox & Matthews 2002) on the modes, rescaled to R after each step.

    The linear part -lambda_k u_k is exact, r(u) u is the nonlinear part. The coefficients are means over a circle in
    the complex plane, which avoids cancellation (Kassam & Trefethen 2005).
    """

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        eigenvalues = domain.eigenvalues.flatten()
        start = torch.where(eigenvalues == 0, 0.0, field_modes(domain, u0).flatten())
        R = (eigenvalues * start**2).sum()

        def nonlinear(u: Tensor) -> Tensor:
            energy = eigenvalues * u**2
            return (eigenvalues * energy).sum() / energy.sum() * u

        def step(u: Tensor, whole: Tensor, half: Tensor, q: Tensor, f1: Tensor, f2: Tensor, f3: Tensor) -> Tensor:
            n_u = nonlinear(u)
            a = half * u + q * n_u
            n_a = nonlinear(a)
            b = half * u + q * n_a
            n_b = nonlinear(b)
            c = half * a + q * (2 * n_b - n_u)
            u = whole * u + f1 * n_u + 2 * f2 * (n_a + n_b) + f3 * nonlinear(c)
            return u * (R / (eigenvalues * u**2).sum()).sqrt()

        states = self._states(start, times, lambda h: _coefficients(-h * eigenvalues, h), step)
        return domain.to_values(torch.stack(states).reshape(-1, *domain.eigenvalues.shape))


@dataclass(frozen=True)
class SDIRK2(_EqualSteps):
    """Implicit steps of the heat equation, L-stable of order 2 (Alexander 1977), rescaled after each.

    One sparse factorisation for all equal steps, so it works on any mesh. Rescaling commutes with the heat flow, so the
    only error is that of the heat steps.
    """

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        from scipy.sparse import csc_array, eye_array
        from scipy.sparse.linalg import splu

        laplacian, gamma = domain.laplacian(), 1 - 1 / math.sqrt(2)

        def prepare(h: float) -> tuple[float, Any]:
            return h, splu(csc_array(eye_array(u0.numel()) - gamma * h * laplacian))

        def step(u: Any, h: float, factors: Any) -> Any:
            first = factors.solve(laplacian @ u)
            second = factors.solve(laplacian @ (u + (1 - gamma) * h * first))
            u = u + h * ((1 - gamma) * first + gamma * second)
            u = u - u.mean()
            return u / np.abs(u).max()

        states = self._states(u0.flatten().numpy(), times, prepare, step)
        return project(laplacian, torch.from_numpy(np.stack(states)), u0)


def _coefficients(z: Tensor, h: float) -> tuple[Tensor, ...]:
    """exp(z), exp(z/2) and the weights of the stages for z = -h lambda, (K)."""
    angle = math.pi * (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    w = z[:, None] + torch.polar(torch.ones_like(angle), angle)  # the lower half of the circle is the conjugate
    e = w.exp()
    q = ((w / 2).exp() - 1) / w
    f1 = (-4 - w + e * (4 - 3 * w + w**2)) / w**3
    f2 = (2 + w + e * (-2 + w)) / w**3
    f3 = (-4 - 3 * w - w**2 + e * (4 - w)) / w**3
    return z.exp(), (z / 2).exp(), *(h * values.mean(1).real for values in (q, f1, f2, f3))
