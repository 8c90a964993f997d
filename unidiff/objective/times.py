"""Distributions of training times, as their quantile functions applied to uniform numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.process.base import Process

__all__ = ["LogNormal", "LogitNormal", "TimeSampling", "TimeState", "UniformTimes"]


class TimeState(ABC):
    """What a distribution of training times has learnt from the losses so far: a value, on the device of the losses.

    Training keeps it in each checkpoint. All processes that share a batch hold the same state: they record the losses
    of the whole batch, in its order.
    """

    @abstractmethod
    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of the process's table to train at, and the factors of their losses that keep the expectation.

        Args:
            uniform: Draws of the uniform distribution on [0, 1), (B,) float64 on the CPU.

        Returns:
            Indices from 0, (B,) int64, and 1 / (L p) at each of them, (B,), for probabilities p of L entries.
        """

    @abstractmethod
    def record(self, rows: Tensor, losses: Tensor) -> TimeState:
        """The state after the losses, (B,), of a step at these entries, (B,) int64; the host does not wait for them."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint."""

    @abstractmethod
    def restored(self, tensors: Mapping[str, Tensor]) -> TimeState:
        """The state that `tensors` returned."""


@dataclass(frozen=True)
class TimeSampling(PlainArguments, ABC):
    """A distribution of training times."""

    def check(self, process: Process) -> None:
        """Reject a process on which this distribution is not defined.

        Raises:
            ParameterError: With the reason.
        """
        return

    def state(self, process: Process, device: torch.device) -> TimeState | None:
        """The state at the beginning of a training; None for a distribution that learns nothing from it."""
        return None

    @abstractmethod
    def draw(self, process: Process, uniform: Tensor) -> Tensor:
        """Times to train at, (B,) float64: quantiles, increasing in `uniform`.

        Args:
            process: The process; the times are in [t_min, 1], and entries of its table if it has one.
            uniform: Draws of the uniform distribution on [0, 1), (B,) float64.
        """


@dataclass(frozen=True)
class UniformTimes(TimeSampling):
    """Uniform over the table of a discrete process, or over [t_min, 1].

    Ho et al. 2020, algorithm 1; Song & Ermon 2019, eq. 6; Song et al. 2021, eq. 7.
    """

    def draw(self, process: Process, uniform: Tensor) -> Tensor:
        """The table's entry number floor(L uniform) of L; t_min + (1 - t_min) uniform without a table."""
        table = process.native_times()
        if table is None:
            return process.t_min + (1 - process.t_min) * uniform
        return table[(uniform * len(table)).long()]


@dataclass(frozen=True)
class _Normal(TimeSampling):
    """A normal distribution of some increasing function of time, its tails moved to t_min and 1."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "a finite number")
        require(0 < self.std < math.inf, "std", self.std, "a number > 0")

    @abstractmethod
    def _time(self, process: Process, normal: Tensor) -> Tensor:
        """The times at which the function has the given values."""

    def draw(self, process: Process, uniform: Tensor) -> Tensor:
        """The time of mean + std z, z the standard normal quantile; of a table the first entry not below it."""
        normal = self.mean + self.std * torch.special.ndtri(uniform.to(torch.float64))
        times = self._time(process, normal).clamp(process.t_min, 1.0)
        table = process.native_times()
        return times if table is None else table[torch.searchsorted(table, times).clamp(max=len(table) - 1)]


@dataclass(frozen=True)
class LogNormal(_Normal):
    """log(sigma / alpha) is normal (Karras et al. 2022, table 1, "noise distribution").

    Args:
        mean: Mean of log(sigma / alpha): the paper's P_mean, -1.2.
        std: Its standard deviation, above 0: P_std, 1.2.
    """

    mean: float = -1.2
    std: float = 1.2

    def check(self, process: Process) -> None:
        """Reject a process whose modes differ in sigma / alpha."""
        if process.basis.shape:
            problem = f"LogNormal needs one sigma / alpha for all modes, and those of {process!r} differ"
            raise ParameterError("times", f"{problem}. Use LogitNormal or UniformTimes.")

    def _time(self, process: Process, normal: Tensor) -> Tensor:
        return process.time_at(-2 * normal)


@dataclass(frozen=True)
class LogitNormal(_Normal):
    """log(t / (1 - t)) is normal (Esser et al. 2024, section 3.1). On FlowMatching it is LogNormal.

    Args:
        mean: Mean of logit t: the paper's m, 0; above it for more noise.
        std: Its standard deviation, above 0: the paper's s, 1.
    """

    mean: float = 0.0
    std: float = 1.0

    def _time(self, process: Process, normal: Tensor) -> Tensor:
        return torch.sigmoid(normal)
