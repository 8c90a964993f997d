"""Drawing samples: noise at t = 1, carried to the data by a solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.condition import check_conditions
from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError, require
from unidiff.grid import Grid, default_grid
from unidiff.noise import Seeded
from unidiff.solver.base import Solver, State
from unidiff.solver.exponential_adams import ExponentialAdams

__all__ = ["DEFAULT_SOLVER", "Solution", "asked_for", "sample"]

# What a user gets without asking, on every process, with `default_grid`: chosen by benchmarks/solvers.py.
DEFAULT_SOLVER: Solver = ExponentialAdams()


@dataclass(frozen=True)
class Solution:
    """The result of a sampling run.

    Attributes:
        x: Samples in pixels, (B, *shape).
        times: The grid, (N + 1,), float64.
        nfe: Evaluations of the denoiser per sample, counted.
        path: States along the run, u in pixels, (B, *shape), from t = 1 to 0; empty unless asked for.
    """

    x: Tensor
    times: Tensor
    nfe: int
    path: tuple[State, ...] = ()


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    solver: Solver = DEFAULT_SOLVER,
    grid: Grid | None = None,
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    keep: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Solution:
    """Draw samples: noise at t = 1, carried to t = 0 by the solver.

    Args:
        denoiser: The model.
        solver: The method.
        grid: The times; Tapered(50) if not given, or ArcLength(50) where the modes differ in SNR.
        shape: Shape of one sample, without the batch axis; the model's own if not given.
        seeds: One seed per sample; a number n stands for 0, ..., n - 1. A sample depends on its own seed alone.
        dtype: Floating type of the state.
        device: Where the state lives; the denoiser must be there too.
        keep: States of the run to keep, spread evenly over the grid, first and last included; 0 for none.
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The samples, the grid and the counted number of evaluations.

    Raises:
        ParameterError: If the grid has no times for the process, the solver is meaningless on it, or the model does
            not know the conditions, or needs one that is missing.
    """
    process = denoiser.process
    times = (grid or default_grid(process)).times(process)
    shape, seeds = asked_for(denoiser, shape, seeds, cond)
    noise = Seeded(seeds)
    u = process.draw_prior(noise, torch.empty(len(seeds), *shape, dtype=dtype, device=device))
    counted = Counted(denoiser)
    steps = len(times) - 1
    kept = {round(i * steps / max(1, keep - 1)) for i in range(keep)}
    path = []
    for done, state in enumerate(solver.trajectory(counted, u, times, noise, **cond)):
        u = state.u
        if done in kept:
            path.append(State(state.t, process.basis.inverse(u).to(dtype)))
        if progress is not None and done > 0:
            progress(done, steps)
    return Solution(process.basis.inverse(u).to(dtype), times, counted.nfe, tuple(path))


def asked_for(
    denoiser: Denoiser, shape: Sequence[int] | None, seeds: Sequence[int] | int, cond: Mapping[str, Tensor]
) -> tuple[Sequence[int], Sequence[int]]:
    """The shape of a sample and the seeds, one for each, of a run that a model can be asked for.

    Raises:
        ParameterError: If the shape is not known, there is no seed, or the conditions are not the model's.
    """
    shape = denoiser.shape if shape is None else shape
    if shape is None:
        raise ParameterError("shape", "this model does not know the shape of its samples; give it, as (1, 28, 28).")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    require(len(seeds) > 0, "seeds", seeds, "a number of at least 1, or one seed per sample")
    check_conditions(cond, denoiser, len(seeds))
    return shape, seeds
