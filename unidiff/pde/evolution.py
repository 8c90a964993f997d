"""The renormalised heat equation u_t = D (Laplace u + r u), integral of |grad u|^2 = R, solved exactly.

Higham, Higham & Grindrod, section 7, equations (20) and (21); D = 1 there. In orthonormal eigenmodes a_k of u_0 the
equation reads u_k' = D (r - lambda_k) u_k, so that u_k = a_k exp(rho(t) - D lambda_k t) with rho' = D r, and the
constraint sum_k lambda_k u_k^2 = R fixes rho:

    u(t) = sqrt(R) e^{D t Laplace} u_0 / |grad e^{D t Laplace} u_0|.

This is the heat flow, rescaled once: there is no time step, and no error that grows with t.

The steady states are mu_k phi_k with r = lambda_k, and a small perturbation along phi_j grows like exp(sigma_j t),
sigma_j = D (lambda_k - lambda_j) (equation 23). For the ratio of two modes this holds exactly and globally, not to
first order only: both have the same factor e^rho.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.display import Pictured
from unidiff.errors import ParameterError, require, require_whole
from unidiff.pde.domain import Domain
from unidiff.pde.field import FieldLike, Times, as_field, as_modes, field_modes, reject_constants
from unidiff.precision import precise

__all__ = ["Flow", "Stability", "evolve", "evolve_modes", "stability", "takeover_time"]

# exp is finite up to these, and down to minus these clear of the subnormal numbers, where it is 25 times slower.
_LARGEST = {torch.float64: 700.0, torch.float32: 86.0}
# Relative tolerance for equal eigenvalues: above the 1e-15 of formulas and the 1e-10 of sparse solvers.
_SAME = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class Flow(Pictured):
    """A solution of the renormalised heat equation at given times.

    Times are the leading axes: with times (*T) and fields (*B, ...) all results are (*T, *B, ...).

    Attributes:
        domain: Where the equation was solved.
        times: Times, (*T), in units of length^2 / diffusivity.
        modes: Modes u_k(t) = <u(t), phi_k>, (*T, *B, *modes).
        growth: rho(t), the integral of D r from 0 to t, (*T, *B): the renormalisation multiplies by e^rho.
        R: The conserved gradient energy, the integral of |grad u|^2, (*B).
    """

    domain: Domain
    times: Tensor
    modes: Tensor
    growth: Tensor
    R: Tensor

    def in_short(self) -> dict[str, Any]:
        """See `Displayed.in_short`."""
        first, last = float(self.times.min()), float(self.times.max())
        times = f"{self.times.numel()} from {first:.3g} to {last:.3g}"
        energy = f"{float(self.R):.4g}" if self.R.ndim == 0 else f"of {self.R.numel()} fields"
        return {"domain": self.domain, "times": times, "R": energy}

    @cached_property
    def values(self) -> Tensor:
        """The field on the domain's grid, (*T, *B, *grid)."""
        return self.domain.to_values(self.modes)

    @cached_property
    def shares(self) -> Tensor:
        """Shares of the gradient energy, p_k = lambda_k u_k^2 / R, (*T, *B, *modes); their sum is 1.

        A Gibbs law at inverse temperature 2 D t: p_k(t) is proportional to p_k(0) exp(-2 D lambda_k t).
        """
        energies = self.domain.eigenvalues.to(self.modes) * self.modes**2
        axes = tuple(range(-self.domain.eigenvalues.ndim, 0))
        return energies / energies.sum(axes, keepdim=True)

    @property
    def r(self) -> Tensor:
        """Multiplier of equation (20), sum_k p_k lambda_k = integral (Laplace u)^2 / R: (*T, *B). It never rises."""
        return (self.shares * self.domain.eigenvalues.to(self.shares)).flatten(-self.domain.eigenvalues.ndim).sum(-1)

    @property
    def effective_modes(self) -> Tensor:
        """Effective number of modes that carry gradient energy, 1 / sum_k p_k^2, (*T, *B)."""
        return 1 / (self.shares**2).flatten(-self.domain.eigenvalues.ndim).sum(-1)


@plain_arguments
def evolve(domain: Domain, u0: FieldLike, times: Times, **options: Any) -> Flow:
    """Solve the renormalised heat equation from initial values.

    Args:
        domain: The domain, with no-flux boundary conditions.
        u0: Values on the grid, (*B, *grid), or a function of the coordinates. Integers become float64.
        times: Times t >= 0, of any shape (*T), in units of length^2 / diffusivity; up to 1e12 and beyond.
        **options: Keywords of `evolve_modes`: diffusivity, R, keep_mean, clean.

    Returns:
        The solution, differentiable in u0, times and R.

    Raises:
        ParameterError: If a field is constant (up to rounding, and in the modes that the domain keeps), not finite or
            not on the grid, or another value is out of range.
    """
    u0 = as_field(domain, u0)
    times = _as_times(times, u0)
    require(bool((times >= 0).all()), "times", times.min().item(), "times >= 0 (`evolve_modes` takes any)")
    return evolve_modes(domain, field_modes(domain, u0), times, **options)


@plain_arguments
def evolve_modes(
    domain: Domain,
    modes: Tensor,
    times: Times,
    *,
    diffusivity: float = 1.0,
    R: float | Tensor | None = None,
    keep_mean: bool = False,
    clean: float = 0.0,
) -> Flow:
    """Solve the renormalised heat equation from initial modes; see `evolve` for what it returns and raises.

    On modes the flow is a group: going back by t undoes going forward by t, to within the precision of the modes.

    Args:
        domain: The domain, with no-flux boundary conditions.
        modes: a_k = <u_0, phi_k>, (*B, *modes).
        times: Times of any sign and shape (*T), in units of length^2 / diffusivity.
        diffusivity: D > 0; one number, for it only rescales time.
        R: Gradient energy to which u0 is rescaled first, > 0, (*B) or one number; that of u0 itself if None, which must
            be in the range of its dtype: fields of size 1e200 need an R.
        keep_mean: Keep the mean of u0 as a constant, instead of removing it. (Under equation (20) it would grow like
            e^rho without bound, since it does not enter the gradient.)
        clean: Drop modes whose gradient norm is below this fraction of the largest one's, in [0, 1). About 1e-13
            removes rounding errors in modes that should be 0, and so the escape from an unstable steady state.
    """
    modes, shape = as_modes(domain, modes), domain.eigenvalues.shape
    require(0 < diffusivity < math.inf, "diffusivity", diffusivity, "a finite number > 0")
    require(0 <= clean < 1, "clean", clean, "a number in [0, 1)")
    times = _as_times(times, modes)
    # Differences of eigenvalues times t need float64, whatever the field's dtype: at t = 1e6 they are all that matters.
    precise = times.dtype
    eigenvalues = domain.eigenvalues.to(modes.device, precise).flatten()
    a = modes.to(precise).flatten(-len(shape))
    b = eigenvalues.sqrt() * a  # b_k^2 is the gradient energy of mode k
    size = b.detach().abs()
    largest = size.amax(-1, keepdim=True)
    reject_constants(largest[..., 0] == 0, "modes")
    if clean > 0:
        dropped = (size > 0) & (size < clean * largest)
        a, b, size = (torch.where(dropped, 0.0, each) for each in (a, b, size))
    initial = largest[..., 0] * torch.linalg.vector_norm(b / largest, dim=-1)
    norm = initial if R is None else _as_energy(R, initial).sqrt()
    energy = (norm**2).to(modes.dtype)
    if not bool(((energy > 0) & energy.isfinite()).all()):
        raise ParameterError(
            "R", f"the gradient energy is outside the range of {modes.dtype}; pass R or scale the field."
        )

    # exp(-(lambda_k - lambda_ref) D t), relative to the dominant mode: exactly 1 for that one at any t.
    t = (diffusivity * times).reshape(*times.shape, *[1] * a.ndim)
    slowest = torch.where(size > 0, eigenvalues, torch.inf).amin(-1, keepdim=True)
    fastest = torch.where(size > 0, eigenvalues, -torch.inf).amax(-1, keepdim=True)
    reference = torch.where(t >= 0, slowest, fastest)
    exponent = (reference - eigenvalues) * t
    # Scaled by the largest term, so that neither 1e-280 nor t = 1e12 underflows in the sum. The scale cancels.
    peak = (size.log() + exponent.detach()).amax(-1, keepdim=True)
    shift, limit = exponent - peak, _LARGEST[precise]
    # Only modes that are 0 meet the upper limit: their derivative is that of the mode, or 1e304 where it is larger.
    factor = torch.where(shift < -limit, 0.0, shift.clamp(-limit, limit).exp())
    scaled = torch.linalg.vector_norm(b * factor, dim=-1)
    u = a * factor * (norm / scaled)[..., None]
    growth = reference[..., 0] * t[..., 0] - (peak[..., 0] + scaled.log()) + initial.log()
    u = torch.where(eigenvalues == 0, a if keep_mean else 0.0, u)
    u = u.reshape(*times.shape, *modes.shape)
    return Flow(domain, times, u.to(modes.dtype), growth.to(modes.dtype), energy)


def _as_times(times: Times, like: Tensor) -> Tensor:
    """Times on the field's device, float64 where the device has it; at least one."""
    tensor = torch.as_tensor(times, dtype=precise(like.device), device=like.device)
    require(tensor.numel() > 0, "times", times, "at least one time")
    require(bool(tensor.isfinite().all()), "times", tensor.tolist(), "finite numbers")
    return tensor


def _as_energy(R: float | Tensor, like: Tensor) -> Tensor:
    """R as one number, or as a tensor that broadcasts to the batch, (*B)."""
    energy = torch.as_tensor(R, dtype=like.dtype, device=like.device)
    energy = energy.reshape(()) if energy.numel() == 1 else energy
    fits = energy.ndim <= like.ndim and all(n in (1, m) for n, m in zip(energy.shape[::-1], like.shape[::-1]))
    require(fits, "R", tuple(energy.shape), f"one number, or of the shape of the batch, {tuple(like.shape)}")
    require(bool(((energy > 0) & energy.isfinite()).all()), "R", R, "a finite number > 0")
    return energy


@dataclass(frozen=True, eq=False)
class Stability:
    """The response of the steady state mu_k phi_k to perturbations.

    Attributes:
        k: Number of the eigenmode in the order of eigenvalues, at least 1.
        eigenvalue: lambda_k, which is also r.
        rates: sigma_j = D (lambda_k - lambda_j) of a perturbation along phi_j, (*modes); that of the constant is
            D lambda_k (it grows unless it is removed), that of phi_k itself 0.
        unstable: Number of directions j >= 1 that grow; the steady state is stable if it is 0.
        neutral: Number of directions j other than k that neither grow nor decay: the multiplicity of lambda_k less 1.
    """

    k: int
    eigenvalue: float
    rates: Tensor
    unstable: int
    neutral: int

    def amplitude(self, R: float) -> float:
        """mu_k = sqrt(R / lambda_k), the coefficient that gives phi_k the gradient energy R > 0."""
        require(0 < R < math.inf, "R", R, "a finite number > 0")
        return math.sqrt(R / self.eigenvalue)


@plain_arguments
def stability(domain: Domain, k: int, *, diffusivity: float = 1.0) -> Stability:
    """The linear stability of the steady state mu_k phi_k.

    Args:
        domain: The domain.
        k: Which eigenmode, counted from 1 in the order of the eigenvalues.
        diffusivity: D > 0.

    Raises:
        ParameterError: If there is no such mode; the constant, k = 0, is not a steady state, as its gradient is 0.
    """
    require(0 < diffusivity < math.inf, "diffusivity", diffusivity, "a finite number > 0")
    eigenvalue = _eigenvalue(domain, "k", k)
    gaps = eigenvalue - domain.eigenvalues
    gaps = torch.where(gaps.abs() <= _SAME * eigenvalue, 0.0, gaps)
    unstable = int(((gaps > 0) & (domain.eigenvalues > 0)).sum())
    return Stability(k, eigenvalue, diffusivity * gaps, unstable, int((gaps == 0).sum()) - 1)


@plain_arguments
def takeover_time(domain: Domain, k: int, j: int, ratio: float, *, diffusivity: float = 1.0) -> float:
    """The time at which phi_j, small at first, reaches phi_k's energy: log(1 / ratio) / (D (lambda_k - lambda_j)).

    Exact if all other modes are 0.

    Args:
        domain: The domain.
        k: The mode that dominates at first, counted from 1 in the order of the eigenvalues.
        j: The mode that takes over, with lambda_j < lambda_k.
        ratio: Norm of the gradient along phi_j over that along phi_k at t = 0: sqrt(lambda_j / lambda_k) |a_j / a_k|,
            in (0, 1].
        diffusivity: D > 0.

    Raises:
        ParameterError: If phi_j never takes over, or a value is out of range.
    """
    require(0 < diffusivity < math.inf, "diffusivity", diffusivity, "a finite number > 0")
    require(0 < ratio <= 1, "ratio", ratio, "a number in (0, 1]")
    first, second = _eigenvalue(domain, "k", k), _eigenvalue(domain, "j", j)
    if not second < first * (1 - _SAME):
        problem = f"mode {j} never takes over from mode {k}: its eigenvalue {second:g} is not below {first:g}."
        raise ParameterError("j", problem)
    return math.log(1 / ratio) / (diffusivity * (first - second))


def _eigenvalue(domain: Domain, name: str, k: int) -> float:
    require_whole(name, k, 1, domain.eigenvalues.numel() - 1)
    return float(domain.eigenvalues.flatten()[domain.order()[k]])
