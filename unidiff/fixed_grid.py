"""A grid of times that are written out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid, times_between
from unidiff.process.base import Process

__all__ = ["FixedGrid"]


@dataclass(frozen=True)
class FixedGrid(Grid):
    """Times that are written out, such as those that `unidiff.tune` has fitted to a model.

    Another number of steps divides these in log t.

    Args:
        interior: The times between 1 and the last noisy one, decreasing, without them; none makes `steps` equal in log
            t.
        steps: Number of intervals, at least 1; null for that of the times, two more than there are `interior` ones.
        last: The last noisy time, from which the run ends; null for t_min. With few evaluations none is left over for
            t_min where x0 no longer changes.
    """

    interior: tuple[float, ...] = ()
    steps: int | None = None
    last: float | None = None

    def __post_init__(self) -> None:
        ends = (1.0, *self.interior, 0.0)
        decreasing = all(a > b for a, b in pairwise(ends))
        require(decreasing, "interior", self.interior, "decreasing times between 1 and t_min")
        if self.steps is not None:
            require_whole("steps", self.steps, 1, 1_000_000)
        if self.last is not None:
            require(0 < self.last < ends[-2], "last", self.last, f"a time from t_min to below {ends[-2]:g}")

    def with_steps(self, steps: int) -> Grid:
        return replace(self, steps=None if steps == len(self.interior) + 2 else steps)

    def times(self, process: Process) -> Tensor:
        if not process.t_min < min(self.interior, default=1.0):
            problem = f"must be decreasing times between 1 and t_min = {process.t_min:g} of {process!r}"
            raise ParameterError("interior", f"{problem}, got {self.interior}")
        if self.last is not None and self.last < process.t_min:
            problem = f"must be at least t_min = {process.t_min:g} of {process!r}"
            raise ParameterError("last", f"{problem}, got {self.last:g}")
        times = times_between(self, process, self.steps or len(self.interior) + 2, self._noisy)
        if self.last is not None and len(times) > 2:
            times[-2] = self.last
        return times

    def _noisy(self, process: Process, fraction: Tensor) -> Tensor:
        nodes = torch.tensor([1.0, *self.interior, self.last or process.t_min], dtype=torch.float64)
        if len(fraction) == len(nodes):
            return nodes
        at = np.linspace(0, 1, len(nodes))
        return torch.from_numpy(np.interp(fraction.numpy(), at, nodes.log().numpy())).exp()
