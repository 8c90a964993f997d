"""Inversion: data to latents and back, along the probability flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import torch
from torch import Tensor

from unidiff.condition import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid, default_grid
from unidiff.process.base import Process
from unidiff.process.level import scale_by
from unidiff.solver.base import Solver
from unidiff.solver.ode import ProbabilityFlow

__all__ = ["RoundTrip", "decode", "encode", "interpolate", "round_trip"]

_FLOW = ProbabilityFlow()


@dataclass(frozen=True)
class RoundTrip:
    """Data, encoded and decoded again.

    Attributes:
        latent: The latents, (B, *shape).
        x: The data that came back, (B, *shape).
        error: Root mean square of what changed, for each sample: (B,).
        nfe: Evaluations of the denoiser per sample, both ways together.
    """

    latent: Tensor
    x: Tensor
    error: Tensor
    nfe: int


@torch.no_grad()
def encode(denoiser: Denoiser, x: Tensor, solver: Solver = _FLOW, grid: Grid | None = None, **cond: Tensor) -> Tensor:
    """The latents of data: the noise that the probability flow carries to them (Song et al. 2021, section 4.3).

    The data are taken for the state at t_min, divided by alpha(t_min), and the latents are states at t = 1 divided by
    `Process.prior_scale`: for a perfect model and the data it models they are standard normal noise, wherever sampling
    starts from a Gaussian.

    Args:
        denoiser: The model.
        x: Data in pixels, (B, *shape).
        solver: A deterministic solver.
        grid: The times, walked from t_min to 1.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        The latents, (B, *shape).

    Raises:
        ParameterError: If the data hold numbers that are not finite, or the solver draws noise.
    """
    require(bool(x.isfinite().all()), "x", "data with NaN or infinity", "finite numbers")
    cond = check_conditions(cond, denoiser, len(x), x.device)
    process, times = denoiser.process, _noisy_times(denoiser, solver, grid).flip(0)
    start = scale_by(process.level(process.t_min, x).alpha, process.basis.forward(x))
    end = _walk(denoiser, start, times, solver, **cond)
    return process.basis.inverse(end / _unit(process, end)).to(x.dtype)


@torch.no_grad()
def decode(
    denoiser: Denoiser, latent: Tensor, solver: Solver = _FLOW, grid: Grid | None = None, **cond: Tensor
) -> Tensor:
    """The data of latents, the inverse of `encode`: it ends at t_min, without the denoise that ends a sampling run.

    Args:
        denoiser: The model.
        latent: Latents, (B, *shape).
        solver: A deterministic solver.
        grid: The times, walked from 1 to t_min.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Returns:
        Data in pixels, (B, *shape).

    Raises:
        ParameterError: If the latents hold numbers that are not finite, or the solver draws noise.
    """
    require(bool(latent.isfinite().all()), "latent", "latents with NaN or infinity", "finite numbers")
    cond = check_conditions(cond, denoiser, len(latent), latent.device)
    process, times = denoiser.process, _noisy_times(denoiser, solver, grid)
    modes = process.basis.forward(latent)
    start = _unit(process, modes) * modes
    end = _walk(denoiser, start, times, solver, **cond)
    return process.basis.inverse(scale_by(1 / process.level(process.t_min, end).alpha, end)).to(latent.dtype)


def round_trip(
    denoiser: Denoiser, x: Tensor, solver: Solver = _FLOW, grid: Grid | None = None, **cond: Tensor
) -> RoundTrip:
    """Encode data and decode the latents: what changed is the solver's error. Parameters and errors as for `encode`."""
    counted = Counted(denoiser)
    latent = encode(counted, x, solver, grid, **cond)
    back = decode(counted, latent, solver, grid, **cond)
    return RoundTrip(latent, back, (back - x).flatten(1).square().mean(1).sqrt(), counted.nfe)


def interpolate(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Latents on the great arc between two, both ends included (Song, Meng & Ermon 2021, eq. 67).

    A straight line would pass through latents that are too short: the norm of noise hardly varies.

    Args:
        start: One latent, (*shape).
        end: Another, (*shape).
        count: How many, at least 2.

    Returns:
        The latents, (count, *shape).

    Raises:
        ParameterError: If the shapes differ, a latent is 0 or not finite, or count is below 2.
    """
    require(start.shape == end.shape, "end", tuple(end.shape), f"the shape of start, {tuple(start.shape)}")
    require_whole("count", count, 2)
    for name, latent in (("start", start), ("end", end)):  # 0 has no direction
        if not 0 < (length := float(latent.norm())) < math.inf:
            raise ParameterError(name, f"must be finite and not all 0, got a latent of norm {length:g}")
    share = torch.linspace(0, 1, count, dtype=start.dtype, device=start.device).reshape(-1, *[1] * start.ndim)
    cosine = (start * end).sum() / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(angle) < 1e-6:  # the same direction, or the opposite one, where no arc is the shortest
        return (1 - share) * start + share * end
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


def _unit(process: Process, like: Tensor) -> Tensor:
    """The unit of latents: the scale of a state at t = 1, () or (*modes)."""
    return torch.as_tensor(process.prior_scale(), dtype=torch.float64).to(like)


def _noisy_times(denoiser: Denoiser, solver: Solver, grid: Grid | None) -> Tensor:
    solver.check(denoiser.process)
    grid = grid or default_grid(denoiser.process)
    times = grid.times(denoiser.process)[:-1]
    require(len(times) > 1, "grid", grid, "one of at least 2 steps")
    return times


def _walk(denoiser: Denoiser, u: Tensor, times: Tensor | Sequence[float], solver: Solver, **cond: Tensor) -> Tensor:
    def no_noise(like: Tensor) -> NoReturn:
        raise ParameterError("solver", f"{solver!r} draws noise; only a deterministic solver can be walked both ways.")

    levels = denoiser.process.levels_at(times, u.device)
    *_, last = islice(solver.states(denoiser, u, levels, no_noise, **cond), len(levels) - 1)
    return last
