"""Simulators of the renormalised heat equation, to verify `unidiff.pde.evolve` and to compare time-stepping methods.

u' = A u + r u on the cells of a domain, A the sparse Laplacian, in the form of the Rayleigh quotient

    r(u) = |A u|^2 / (u, -A u)    [integral (Laplace u)^2 / integral |grad u|^2],

which is invariant to the scale of u, where equation (22) of Higham, Higham & Grindrod divides by a frozen R and
amplifies every defect (`unidiff.pde.equation_22_with_frozen_R`). The equation is homogeneous of degree 1 in u and
independent of the mean: rescaling to R and removing the mean at the output times is the same as after every step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.errors import RunFailed, require, require_whole
from unidiff.pde.domain import Domain
from unidiff.pde.field import FieldLike, Times, field_modes, single_field, volume

__all__ = ["ETDRK4", "SDIRK2", "MethodOfLines", "Simulator", "TorchMethodOfLines", "equation_22_with_frozen_R"]


@dataclass(frozen=True)
class Simulator(PlainArguments, ABC):
    """A way to integrate the renormalised heat equation step by step, D = 1."""

    def simulate(self, domain: Domain, u0: FieldLike, times: Times) -> Tensor:
        """Integrate one initial field.

        Args:
            domain: The domain.
            u0: Values on the grid, (*grid), or a function of the coordinates; their mean is removed.
            times: Increasing times >= 0: (T).

        Returns:
            Values at the times, (T, *grid), float64, of mean 0 and the gradient energy of u0.

        Raises:
            ParameterError: If the method cannot be used on the domain, the field is constant, not finite or not a
                single field on the grid, or times do not increase.
            RunFailed: If the integration fails.
        """
        start, scale, at = single_field(domain, u0, times)
        return scale * self._solve(domain, start, at)

    @abstractmethod
    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        """Values at the times, (T, *grid), from values of mean 0 and largest size 1."""


def _rayleigh(laplacian: Any, u: Any) -> tuple[Any, Any, float]:
    """U minus its mean, A u, and r(u) = |A u|^2 / (u, -A u)."""
    u = u - u.mean()
    heat = laplacian @ u
    return u, heat, float((heat @ heat) / -(u @ heat))


def _slope(laplacian: Any, u: Any) -> Any:
    """The right side A u + r u."""
    u, heat, r = _rayleigh(laplacian, u)
    return heat + r * u


@dataclass(frozen=True)
class MethodOfLines(Simulator):
    """An adaptive method of SciPy on the Rayleigh form.

    Args:
        method: Name of the method. Radau and BDF are implicit and use the dense Jacobian: for at most 1000 cells or so.
        rtol: Relative tolerance of a step, above 0.
    """

    method: Literal["RK45", "DOP853", "Radau", "BDF", "LSODA"] = "DOP853"
    rtol: float = 1e-9

    def __post_init__(self) -> None:
        methods = ("RK45", "DOP853", "Radau", "BDF", "LSODA")
        require(self.method in methods, "method", self.method, ", ".join(methods))
        require(0 < self.rtol < 1, "rtol", self.rtol, "a number in (0, 1)")

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        from scipy.integrate import solve_ivp

        laplacian = domain.laplacian()

        def jacobian(_: float, u: Any) -> Any:
            u, heat, r = _rayleigh(laplacian, u)
            gradient = 2 * (laplacian @ heat + r * heat) / -(u @ heat)  # of r
            return laplacian.toarray() + r * np.eye(len(u)) + np.outer(u, gradient)

        options: dict[str, Any] = {"method": self.method, "rtol": self.rtol, "atol": 1e-3 * self.rtol}
        if self.method in ("Radau", "BDF", "LSODA"):
            options["jac"] = jacobian
        u, states = u0.flatten().numpy(), []
        # One call per output time: between its steps a method only interpolates.
        for span in pairwise([0.0, *times.tolist()]):
            if span[1] > span[0]:
                solution = solve_ivp(lambda _, u: _slope(laplacian, u), span, u, **options)
                if not solution.success:
                    raise RunFailed(f"{self.method} failed at t = {solution.t[-1]:g}: {solution.message}")
                u = solution.y[:, -1]
            states.append(u)
        return _project(laplacian, torch.from_numpy(np.stack(states)), u0)


@dataclass(frozen=True)
class TorchMethodOfLines(Simulator):
    """An adaptive method of torchdiffeq on the Rayleigh form.

    Args:
        method: Name of one of torchdiffeq's adaptive explicit methods: dopri5, dopri8, bosh3, ...
        rtol: Relative tolerance of a step, above 0.
    """

    method: str = "dopri5"
    rtol: float = 1e-9

    def __post_init__(self) -> None:
        require(0 < self.rtol < 1, "rtol", self.rtol, "a number in (0, 1)")

    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        from torchdiffeq import odeint

        laplacian = domain.laplacian()

        def rate(_: Tensor, u: Tensor) -> Tensor:
            return torch.from_numpy(_slope(laplacian, u.numpy()))

        t, rtol = torch.cat([torch.zeros(1, dtype=torch.float64), times[times > 0]]), self.rtol
        path = odeint(rate, u0.flatten(), t, rtol=rtol, atol=1e-3 * rtol, method=self.method, options={"step_t": t[1:]})
        return _project(laplacian, path[len(t) - len(times) :], u0)


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
        return _project(laplacian, torch.from_numpy(np.stack(states)), u0)


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


@plain_arguments
def equation_22_with_frozen_R(
    domain: Domain, u0: FieldLike, times: Times, *, R: float | None = None, method: str = "RK45", rtol: float = 1e-9
) -> tuple[Tensor, Tensor]:
    """Demonstrate an instability: integrate equation (22) of Higham, Higham & Grindrod as printed. Not for results.

    u_t = Laplace u + (u / R) integral (Laplace u)^2, R the gradient energy of u_0. For q = integral |grad u|^2 / R and
    nu = integral (Laplace u)^2 / integral |grad u|^2 it implies q' = 2 nu q (q - 1): the invariant surface q = 1 is
    repelling. (q - 1) / q grows like e^(2 rho), rho the integral of nu: any perturbation, by rounding or by a solver's
    step, leads to q = 0 or to a blow-up.

    Args:
        domain: A domain with a sparse Laplacian.
        u0: Values on the grid, (*grid), or a function of the coordinates; their mean is removed.
        times: Increasing times >= 0: (T).
        R: The frozen R; the gradient energy of u0 if None. Another value perturbs q(0) away from 1.
        method: A method of `scipy.integrate.solve_ivp`.
        rtol: Its relative tolerance.

    Returns:
        Values, (T, *grid), and q, (T); NaN after a blow-up.

    Raises:
        ParameterError: As for `Simulator.simulate`.
    """
    laplacian = domain.laplacian()
    field, scale, at = single_field(domain, u0, times)
    start, energy = field.flatten().numpy(), float(_energy(laplacian, field.reshape(1, -1)))
    if R is not None:
        require(0 < R < math.inf, "R", R, "a finite number > 0")
        # R is an integral over the domain, the sums here are over its cells.
        energy = R / scale**2 * start.size / volume(domain)

    def right(_: float, u: Any) -> Any:
        heat = laplacian @ u
        return heat + (heat @ heat) / energy * u

    def blown_up(_: float, u: Any) -> float:
        return 1e6 - float(np.abs(u).max())

    blown_up.terminal = True  # type: ignore[attr-defined]
    from scipy.integrate import solve_ivp

    tolerances = {"rtol": rtol, "atol": 1e-3 * rtol}
    solution = solve_ivp(right, (0.0, float(at[-1])), start, method, at.numpy(), events=blown_up, **tolerances)
    values = torch.full((len(at), start.size), math.nan, dtype=torch.float64)
    values[: solution.y.shape[1]] = torch.from_numpy(solution.y.T.copy())
    return scale * values.reshape(len(at), *field.shape), _energy(laplacian, values) / energy


def _project(laplacian: Any, values: Tensor, u0: Tensor) -> Tensor:
    """Values, (T, cells), of mean 0 and with the gradient energy of u0: (T, *grid)."""
    values = values - values.mean(1, keepdim=True)
    ratio = _energy(laplacian, u0.reshape(1, -1)) / _energy(laplacian, values)
    return (values * ratio.sqrt()[:, None]).reshape(-1, *u0.shape)


def _energy(laplacian: Any, values: Tensor) -> Tensor:
    """(u, -A u), (T), of values, (T, cells)."""
    return -(values * torch.from_numpy((laplacian @ values.numpy().T).T)).sum(1)
