"""What every solver does: walk down a grid of times, and denoise once at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import require
from unidiff.grid import Grid
from unidiff.noise import Noise, Seeded
from unidiff.process.base import Level, Process

__all__ = ["OneStep", "Solution", "Solver", "State", "sample"]


class State(NamedTuple):
    """A point of a trajectory: the state u, (B, *modes), at time t."""

    t: float
    u: Tensor


@dataclass(frozen=True)
class Solver(ABC):
    """A rule that carries a state along a grid of times. It holds parameters only: no model, no grid, no state.

    Attributes:
        order: What the literature calls the method's order; None where it has none.
    """

    order: ClassVar[int | None] = None

    @property
    def convergence(self) -> int | None:
        """Order of convergence of the state at t_min in the number of steps, of its distribution if it is random."""
        return self.order

    def check(self, process: Process) -> None:
        """Refuse a process on which this method is meaningless.

        Raises:
            ParameterError: With the reason.
        """
        return

    @abstractmethod
    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states at levels[1], levels[2], ..., and then the clean state, each (B, *modes).

        Whoever does not want the clean state leaves it unasked for; it is computed last. A deterministic solver walks
        levels of growing noise as well.

        Args:
            denoiser: The model.
            u: State at levels[0], (B, *modes).
            levels: Where to go; every sigma is above 0.
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.
        """

    def trajectory(
        self, denoiser: Denoiser, u: Tensor, times: Tensor | Sequence[float], noise: Noise, **cond: Tensor
    ) -> Iterator[State]:
        """Every state from the start u at times[0] to the clean end at times[-1] = 0, the start included.

        Args:
            denoiser: The model.
            u: State at times[0], (B, *modes).
            times: Strictly decreasing, ending at 0: (N + 1,).
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.
        """
        times = torch.as_tensor(times, dtype=torch.float64)
        levels = denoiser.process.levels_at(times[:-1])
        states = self.states(denoiser, u, levels, noise, **cond)
        return map(State, times.tolist(), chain([u], states))


@dataclass(frozen=True)
class OneStep(Solver):
    """A solver that remembers nothing between steps: one rule from a time t to a time s."""

    @abstractmethod
    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The state at s, (B, *modes), from the state u at t.

        Args:
            denoiser: The model.
            u: State at t, (B, *modes).
            t: Where the state is.
            s: Where to go; its sigma is above 0.
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.
        """

    def finish(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The clean state, (B, *modes), from the state at the last noisy time t: one denoise."""
        return denoiser(u, t, **cond).x0

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """Step by step along the levels; see `Solver.states`."""
        for t, s in pairwise(levels):
            u = self.step(denoiser, u, t, s, noise, **cond)
            yield u
        yield self.finish(denoiser, u, levels[-1], noise, **cond)


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
    solver: Solver,
    grid: Grid,
    shape: Sequence[int],
    seeds: int | Sequence[int],
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
        grid: The times.
        shape: Shape of one sample, without the batch axis.
        seeds: One seed per sample; a number n stands for 0, ..., n - 1. A sample depends on its own seed alone.
        dtype: Floating type of the state.
        device: Where the state lives; the denoiser must be there too.
        keep: States of the run to keep, spread evenly over the grid, first and last included; 0 for none.
        progress: Called with (steps done, steps in all) after each step.
        **cond: Conditions, each (B, ...), handed to the denoiser.

    Returns:
        The samples, the grid and the counted number of evaluations.

    Raises:
        ParameterError: If the grid has no times for the process, or the solver is meaningless on it.
    """
    process = denoiser.process
    solver.check(process)
    times = grid.times(process)
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    require(len(seeds) > 0, "seeds", seeds, "a number of at least 1, or one seed per sample")
    noise = Seeded(seeds)
    u = process.prior(noise(torch.empty(len(seeds), *shape, dtype=dtype, device=device)))
    counted = Counted(denoiser)
    steps = len(times) - 1
    kept = {round(i * steps / max(1, keep - 1)) for i in range(keep)}
    path = []
    for done, state in enumerate(solver.trajectory(counted, u, times, noise, **cond)):
        u = state.u
        if done in kept:
            path.append(State(state.t, process.basis.inverse(u)))
        if progress is not None and done > 0:
            progress(done, steps)
    return Solution(process.basis.inverse(u), times, counted.nfe, tuple(path))
