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
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import RunFailed, require
from unidiff.pde.domain import Domain
from unidiff.pde.field import FieldLike, Times, as_field, volume

__all__ = ["MethodOfLines", "Simulator", "TorchMethodOfLines", "equation_22_with_frozen_R", "project"]

_Array = Any  # numpy.ndarray of float64


@dataclass(frozen=True)
class Simulator(ABC):
    """A way to integrate the renormalised heat equation step by step, D = 1."""

    def simulate(self, domain: Domain, u0: FieldLike, times: Times) -> Tensor:
        """Integrate one initial field.

        Args:
            domain: The domain.
            u0: Values on the grid, (*grid), or a function of the coordinates; their mean is removed and their gradient
                energy preserved.
            times: Increasing times >= 0: (T).

        Returns:
            Values at the times, (T, *grid), float64, of mean 0 and the gradient energy of u0.

        Raises:
            ParameterError: If the method cannot be used on the domain, the field is constant, not finite or not a
                single field on the grid, or times do not increase.
            RunFailed: If the integration fails.
        """
        start, scale, at = _problem(domain, u0, times)
        return scale * self._solve(domain, start, at)

    @abstractmethod
    def _solve(self, domain: Domain, u0: Tensor, times: Tensor) -> Tensor:
        """Values at the times, (T, *grid), from values of mean 0 and largest size 1."""


def _problem(domain: Domain, u0: FieldLike, times: Times) -> tuple[Tensor, float, Tensor]:
    """A field of mean 0 and largest size 1, (*grid), so that no square overflows; its scale; and times, (T)."""
    at = torch.as_tensor(times, dtype=torch.float64).reshape(-1)
    increasing = len(at) > 0 and float(at[0]) >= 0 and bool((at.diff() > 0).all()) and math.isfinite(at[-1])
    require(increasing, "times", at.tolist(), "increasing finite numbers >= 0")
    field = as_field(domain, u0).detach().to("cpu", torch.float64)
    require(field.ndim == domain.points[0].ndim, "u0", tuple(field.shape), "one field, without a batch axis")
    start = field - field.mean()
    scale = float(start.abs().max())
    return start / scale, scale, at


def _rayleigh(laplacian: Any, u: _Array) -> tuple[_Array, _Array, float]:
    """U minus its mean, A u, and r(u) = |A u|^2 / (u, -A u)."""
    u = u - u.mean()
    heat = laplacian @ u
    return u, heat, float((heat @ heat) / -(u @ heat))


def _slope(laplacian: Any, u: _Array) -> _Array:
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

        def jacobian(_: float, u: _Array) -> _Array:
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
        return project(laplacian, torch.from_numpy(np.stack(states)), u0)


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

        def right(_: Tensor, u: Tensor) -> Tensor:
            return torch.from_numpy(_slope(laplacian, u.numpy()))

        at = torch.cat([torch.zeros(1, dtype=torch.float64), times[times > 0]])
        path = odeint(right, u0.flatten(), at, rtol=self.rtol, atol=1e-3 * self.rtol, method=self.method)
        return project(laplacian, path[len(at) - len(times) :], u0)


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
    field, scale, at = _problem(domain, u0, times)
    start = field.flatten().numpy()
    energy = float(_energy(laplacian, field.reshape(1, -1)))
    if R is not None:
        require(0 < R < math.inf, "R", R, "a finite number > 0")
        # R is an integral over the domain, the sums here are over its cells.
        energy = R / scale**2 * start.size / volume(domain)

    def right(_: float, u: _Array) -> _Array:
        heat = laplacian @ u
        return heat + (heat @ heat) / energy * u

    def blown_up(_: float, u: _Array) -> float:
        return 1e6 - float(np.abs(u).max())

    blown_up.terminal = True  # type: ignore[attr-defined]
    from scipy.integrate import solve_ivp

    span, atol = (0.0, float(at[-1])), 1e-3 * rtol
    solution = solve_ivp(right, span, start, method, at.numpy(), rtol=rtol, atol=atol, events=blown_up)
    values = torch.full((len(at), start.size), math.nan, dtype=torch.float64)
    values[: solution.y.shape[1]] = torch.from_numpy(solution.y.T.copy())
    return scale * values.reshape(len(at), *field.shape), _energy(laplacian, values) / energy


def project(laplacian: Any, values: Tensor, u0: Tensor) -> Tensor:
    """Values, (T, cells), of mean 0 and with the gradient energy of u0: (T, *grid)."""
    values = values - values.mean(1, keepdim=True)
    ratio = _energy(laplacian, u0.reshape(1, -1)) / _energy(laplacian, values)
    return (values * ratio.sqrt()[:, None]).reshape(-1, *u0.shape)


def _energy(laplacian: Any, values: Tensor) -> Tensor:
    """(u, -A u), (T), of values, (T, cells)."""
    return -(values * torch.from_numpy((laplacian @ values.numpy().T).T)).sum(1)
