"""Restart sampling: an interval of the flow, walked several times from noise that is added between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level, noised
from unidiff.solver.base import OneStep, Solver
from unidiff.solver.ode import Heun

__all__ = ["Restart"]


@dataclass(frozen=True)
class Restart(Solver):
    """A solver whose steps between two times are repeated, each time from the state noised back (Xu et al. 2023).

    Their algorithm 1 with one interval: from the last time of the grid in it to the first the state is noised by the
    process's own transition, and the steps between are taken again. The noise contracts errors that were made before,
    and the steps in between are those of a flow, whose errors are of higher order. Of a grid that has fewer than two
    times in the interval nothing is repeated. It costs `repeats` times the evaluations of the interval more.

    Args:
        solver: The method of a step; theirs is Heun's.
        low: The end of the interval, t_min in the paper, a time in [0, 1).
        high: Its beginning, t_max, a time above `low`, at most 1.
        repeats: K, how often the interval is walked again, at least 1.
    """

    solver: OneStep = field(default_factory=Heun)
    low: float = 0.1
    high: float = 0.4
    repeats: int = 2

    def __post_init__(self) -> None:
        if not hasattr(self.solver, "step"):
            raise ParameterError("solver", f"{self.solver!r} has no single step to repeat; use Heun or DDIM")
        require(0 <= self.low < 1, "low", self.low, "a time in [0, 1)")
        require(self.low < self.high <= 1, "high", self.high, f"a time above low ({self.low:g}), at most 1")
        require_whole("repeats", self.repeats)

    @property
    def convergence(self) -> int | None:
        """That of the steps, in distribution."""
        return self.solver.convergence

    def check(self, process: Process) -> None:
        """See `Solver.check`."""
        self.solver.check(process)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states of the last pass over each level; see `Solver.states`."""
        inside = [i for i, level in enumerate(levels) if self.low <= level.time <= self.high]
        first, last = (inside[0], inside[-1]) if len(inside) > 1 else (0, 0)
        for i, (t, s) in enumerate(pairwise(levels)):
            u = self.solver.step(denoiser, u, t, s, noise, **cond)
            if i + 1 == last > 0:
                for _ in range(self.repeats):
                    u = noised(u, levels[last], levels[first], noise(u))
                    for above, below in pairwise(levels[first : last + 1]):
                        u = self.solver.step(denoiser, u, above, below, noise, **cond)
            yield u
        yield self.solver.finish(denoiser, u, levels[-1], noise, **cond)
