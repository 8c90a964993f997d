"""Importance sampling of the training times by the second moments of the loss: a distribution with a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unidiff.errors import ParameterError, require, require_whole
from unidiff.memory import require_memory
from unidiff.objective.times import TimeState, UniformTimes
from unidiff.precision import precise
from unidiff.process.base import Process

__all__ = ["ImportanceSampled", "LossHistory"]

_UNITS = 2.0**40  # in which probabilities are counted: sums of integers are exact on every device, in any order


@dataclass(frozen=True)
class LossHistory(TimeState):
    """The last losses at each entry of a table, and the probabilities that follow from them.

    Attributes:
        losses: The last losses at each entry, (L, history); the oldest is overwritten first.
        counts: Losses seen at each entry, (L,) int64.
        uniform: Share of the times that is uniform over the table.
    """

    losses: Tensor
    counts: Tensor
    uniform: float

    def weights(self) -> Tensor:
        """Probabilities of the entries up to one common factor, (L,) int64 >= 1; equal until the history is full."""
        size, history = self.losses.shape
        tiny = torch.finfo(self.losses.dtype).tiny
        root = (self.losses / self.losses.abs().max().clamp(min=tiny)).square().mean(1).sqrt()
        share = (1 - self.uniform) * root / root.sum().clamp(min=tiny) + self.uniform / size
        full = self.counts.min() >= history
        return torch.where(full, share, 1 / size).mul(_UNITS).round().long().clamp(min=1)

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """See `TimeState.draw`."""
        weights = self.weights()
        ends = weights.cumsum(0)
        uniform = uniform.to(weights.device, self.losses.dtype, non_blocking=True)
        rows = torch.searchsorted(ends, (uniform * ends[-1]).long(), right=True).clamp(max=len(ends) - 1)
        return rows, ends[-1].to(uniform) / (len(ends) * weights[rows])

    def record(self, rows: Tensor, losses: Tensor) -> LossHistory:
        """See `TimeState.record`."""
        size, history = self.losses.shape
        order = rows.argsort(stable=True)
        ordered = rows[order]
        first, after = (torch.searchsorted(ordered, ordered, right=right) for right in (False, True))
        places = torch.arange(len(rows), device=rows.device)
        # Of more losses at one entry than the history holds, the last remain; the others go to a row that is dropped.
        target = torch.where(after - places <= history, ordered, size)
        column = (self.counts[ordered] + places - first) % history
        kept = torch.cat([self.losses, self.losses[:1]])
        kept[target, column] = losses[order].to(kept.dtype)
        counts = self.counts.index_add(0, rows, torch.ones_like(rows))
        return replace(self, losses=kept[:size], counts=counts)

    def tensors(self) -> dict[str, Tensor]:
        """See `TimeState.tensors`."""
        return {"losses": self.losses, "counts": self.counts}

    def restored(self, tensors: Mapping[str, Tensor]) -> LossHistory:
        """See `TimeState.restored`."""
        return replace(self, losses=tensors["losses"], counts=tensors["counts"])


@dataclass(frozen=True)
class ImportanceSampled(UniformTimes):
    """p_t proportional to sqrt(E[L_t^2]) over the entries of a table (Nichol & Dhariwal 2021, eq. 18).

    The expectation is a mean over the last losses at t. A loss counts 1 / (L p_t) times for L entries, so its
    expectation is that of uniform times, whatever p; of all p this one has the least variance. Until every entry has
    `history` losses, times are uniform. The losses seen are part of the checkpoint.

    Args:
        history: Losses kept for each entry, at least 1; the paper's 10.
        uniform: Share of uniform times, above 0 and at most 1, which bounds the factor of a loss by 1 / uniform; 0.001
            in the authors' code (from memory).
    """

    history: int = 10
    uniform: float = 0.001

    def __post_init__(self) -> None:
        require_whole("history", self.history, 1, 10_000)
        require(0 < self.uniform <= 1, "uniform", self.uniform, "a number above 0, at most 1")

    def check(self, process: Process) -> None:
        """Reject a process without a table, which has no entries to keep losses of."""
        if (table := process.native_times()) is None:
            problem = f"ImportanceSampled keeps the losses at each entry of a table, and {process!r} has none"
            raise ParameterError("times", f"{problem}. Use DDPM or NCSN, or UniformTimes.")
        what = f"{self.history:,} losses at each of {len(table):,} times"
        require_memory(
            "history", 2 * 8 * len(table) * self.history, what, "Lower it."
        )  # twice: they are replaced whole

    def state(self, process: Process, device: torch.device) -> LossHistory:
        """No losses yet; see `TimeSampling.state`."""
        self.check(process)
        table = process.native_times()
        assert table is not None
        losses = torch.zeros(len(table), self.history, dtype=precise(device), device=device)
        return LossHistory(losses, torch.zeros(len(table), dtype=torch.int64, device=device), self.uniform)
