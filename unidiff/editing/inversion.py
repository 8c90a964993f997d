"""Inversion of the probability flow: data to latents and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid
from unidiff.memory import enough_memory
from unidiff.process.base import Process
from unidiff.process.level import scale_by
from unidiff.solver.base import Solver
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.gradients import optional_gradients
from unidiff.solver.ode import ProbabilityFlow
from unidiff.solver.spec import solver_and_grid
from unidiff.tensors import check_batch, check_floats

__all__ = ["RoundTrip", "decode", "encode", "interpolate", "round_trip"]

_FLOW = ProbabilityFlow()


@dataclass(frozen=True)
class RoundTrip:
    """Data, encoded and decoded again.

    Attributes:
        latent: The latents, (B, *shape).
        x: The decoded data, (B, *shape).
        error: Root mean square difference from the original, for each sample: (B,).
        nfe: Evaluations of the denoiser per sample, both ways together.
    """

    latent: Tensor
    x: Tensor
    error: Tensor
    nfe: int


@plain_arguments
@enough_memory("Pass fewer samples at once.")
@optional_gradients
def encode(
    denoiser: Denoiser,
    x: Tensor,
    solver: Solver | str = _FLOW,
    grid: Grid | str | int | None = None,
    *,
    grad: bool = False,
    **cond: Tensor,
) -> Tensor:
    """The latents of data, (B, *shape): the noise that the probability flow maps to them.

    Song et al. 2021, section 4.3. The data are identified with the state at t_min divided by alpha(t_min), and the
    latents are states at t = 1 divided by `Process.prior_scale`: for a perfect model of the data they are standard
    normal, wherever sampling starts from a Gaussian.

    Args:
        denoiser: The model.
        x: Data in pixels, (B, *shape).
        solver: A deterministic solver.
        grid: The times, from t_min to 1.
        grad: Whether the latents can be differentiated, in the data too; see `sample`.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If the data are not finite, or the solver draws noise.
    """
    check_batch("x", x, denoiser.shape)
    cond = check_conditions(cond, denoiser, len(x), x.device)
    process = denoiser.process
    start = scale_by(process.level(process.t_min, x).alpha, process.basis.forward(x))
    end = _integrate(denoiser, start, solver, grid, True, cond)
    return process.basis.inverse(end / _prior_scale(process, end)).to(x.dtype)


@plain_arguments
@enough_memory("Pass fewer samples at once.")
@optional_gradients
def decode(
    denoiser: Denoiser,
    latent: Tensor,
    solver: Solver | str = _FLOW,
    grid: Grid | str | int | None = None,
    *,
    grad: bool = False,
    **cond: Tensor,
) -> Tensor:
    """The data of latents in pixels, (B, *shape): the inverse of `encode`, so without the denoise of a sampling run.

    Args:
        denoiser: The model.
        latent: Latents, (B, *shape).
        solver: A deterministic solver.
        grid: The times, from 1 to t_min.
        grad: Whether the data can be differentiated, in the latents too; see `sample`.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If the latents are not finite, or the solver draws noise.
    """
    check_batch("latent", latent, denoiser.shape)
    cond = check_conditions(cond, denoiser, len(latent), latent.device)
    process = denoiser.process
    modes = process.basis.forward(latent)
    end = _integrate(denoiser, _prior_scale(process, modes) * modes, solver, grid, False, cond)
    x = process.basis.inverse(scale_by(1 / process.level(process.t_min, end).alpha, end)).to(latent.dtype)
    warn_if_not_finite(x)
    return x


@plain_arguments
def round_trip(
    denoiser: Denoiser,
    x: Tensor,
    solver: Solver | str = _FLOW,
    grid: Grid | str | int | None = None,
    **cond: Tensor,
) -> RoundTrip:
    """Encode data and decode the latents: the difference is the solver's error. Arguments as for `encode`."""
    counted = Counted(denoiser)
    latent = encode(counted, x, solver, grid, grad=False, **cond)
    back = decode(counted, latent, solver, grid, grad=False, **cond)
    return RoundTrip(latent, back, (back - x).flatten(1).square().mean(1).sqrt(), counted.nfe)


@plain_arguments
def interpolate(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Latents by spherical interpolation, (count, *shape), both ends included (Song, Meng & Ermon 2021, eq. 67).

    Linear interpolation would shrink their norm, which hardly varies for noise in many dimensions.

    Args:
        start: One latent, (*shape).
        end: Another, (*shape).
        count: How many, at least 2.

    Raises:
        ParameterError: If the shapes differ, a latent is 0 or not finite, or count is below 2.
    """
    for name, latent in (("start", start), ("end", end)):
        check_floats(name, latent, ("*shape",), True, finite=False)
    require(start.shape == end.shape, "end", tuple(end.shape), f"the shape of start, {tuple(start.shape)}")
    require_whole("count", count, 2)
    for name, latent in (("start", start), ("end", end)):  # 0 has no direction
        if not 0 < (length := float(latent.norm())) < math.inf:
            raise ParameterError(name, f"must be finite and not all 0, got a latent of norm {length:g}")
    share = torch.linspace(0, 1, count, dtype=start.dtype, device=start.device).reshape(-1, *[1] * start.ndim)
    cosine = (start * end).sum() / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:  # the same direction, or the opposite one, where the shortest arc is not unique
        return (1 - share) * start + share * end
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


def _prior_scale(process: Process, like: Tensor) -> Tensor:
    return torch.as_tensor(process.prior_scale(), dtype=torch.float64).to(like)


def _integrate(
    denoiser: Denoiser,
    u: Tensor,
    solver: Solver | str,
    grid: Grid | str | int | None,
    to_noise: bool,
    cond: Mapping[str, Tensor],
) -> Tensor:
    """The state at t = 1 (to_noise) or t_min from the state u at the other end, (B, *modes)."""

    def no_noise(like: Tensor) -> NoReturn:
        raise ParameterError("solver", f"{solver!r} draws noise; only a deterministic solver can be inverted.")

    solver, grid = solver_and_grid(denoiser.process, solver, grid)
    solver.check(denoiser.process)
    times = grid.times(denoiser.process)[:-1]
    require(len(times) > 1, "grid", grid, "a grid of at least 2 steps")
    levels = denoiser.process.levels_at(times.flip(0) if to_noise else times, u.device)
    *_, last = islice(solver.states(denoiser, u, levels, no_noise, **cond), len(levels) - 1)
    return last
