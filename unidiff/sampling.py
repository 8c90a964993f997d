"""How samples are drawn from a trained model: the recipe's `sampling` section."""

from __future__ import annotations

from dataclasses import dataclass

from unidiff.errors import require_whole
from unidiff.grid import Grid, default_grid
from unidiff.process.base import Process
from unidiff.solver.base import Solver
from unidiff.solver.sample import DEFAULT_SOLVER

__all__ = ["Sampling"]


@dataclass(frozen=True)
class Sampling:
    """A solver, a grid and a number of samples.

    Args:
        solver: The method.
        grid: The times; null is Tapered(50), or ArcLength(50) for a process whose modes differ in SNR.
        count: Number of samples, at least 1.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
    """

    solver: Solver = DEFAULT_SOLVER
    grid: Grid | None = None
    count: int = 64
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("count", self.count, 1, 10_000_000)
        require_whole("batch", self.batch, 1, 10_000_000)
        require_whole("seed", self.seed, 0, 2**62)

    def grid_for(self, process: Process) -> Grid:
        """The grid on which this process is sampled."""
        return self.grid or default_grid(process)

    def check(self, process: Process) -> None:
        """Refuse a process that the solver or the grid cannot serve.

        Raises:
            ParameterError: With the reason.
        """
        self.grid_for(process).check(process)
        self.solver.check(process)
