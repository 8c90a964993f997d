"""Time grids: at which times a solver asks the denoiser. All are floats, from 1 down to 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import ParameterError, require_whole
from unidiff.process.base import Process

__all__ = ["Grid", "Native", "Uniform"]


@dataclass(frozen=True)
class Grid(ABC):
    """A rule that gives the times of a sampling run."""

    @abstractmethod
    def times(self, process: Process) -> Tensor:
        """The times, strictly decreasing from 1, the last two t_min (or 1) and 0: (N + 1,), float64, for N steps."""

    def check(self, process: Process) -> None:
        """Refuse a process that this grid has no times for.

        Raises:
            ParameterError: With the reason.
        """
        self.times(process)


@dataclass(frozen=True)
class Native(Grid):
    """Every entry of the process's own table, then 0: DDPM's T times or NCSN's L levels."""

    def times(self, process: Process) -> Tensor:
        """The times (L + 1,); see `Grid.times`."""
        table = process.native_times()
        if table is None:
            raise ParameterError("grid", f"Native needs a table of times; {process!r} has none. Use Uniform(steps).")
        return torch.cat([table.flip(0), table.new_zeros(1)])


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps from 1 to the process's t_min, then 0.

    On DDPM with `steps` = T this is the native grid. The times need not be entries of a table.

    Args:
        steps: N, the number of intervals, at least 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        require_whole("steps", self.steps, 1, 1_000_000)

    def times(self, process: Process) -> Tensor:
        """The times (steps + 1,); see `Grid.times`."""
        noisy = torch.linspace(1, process.t_min, self.steps, dtype=torch.float64)
        return torch.cat([noisy, noisy.new_zeros(1)])
