"""The interface of every training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Generic, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar

from unidiff.arguments import PlainArguments
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import ParameterError
from unidiff.objective.coupling import Coupling, Independent
from unidiff.objective.times import TimeSampling, UniformTimes
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["Objective", "entry_below", "table_levels"]


class _OfProcess(Protocol):
    process: Process


Model = TypeVar("Model", bound=_OfProcess, contravariant=True, default=NeuralDenoiser)


@dataclass(frozen=True)
class Objective(PlainArguments, ABC, Generic[Model]):
    """A loss of a network, averaged over data, noise and time by the training loop.

    Args:
        times: Distribution of the training times, by default uniform.
        coupling: Which noise belongs to which sample, by default independent.

    Attributes:
        differentiates_twice: Whether the loss contains a derivative of the network in its input.
        learns_variance: Whether the loss trains the variance of a reverse step, which the network must then predict.
        couples: Whether the loss is meaningful if sample and noise are not independent.
        needs_teacher: Whether the loss contains the predictions of another model; see `with_teacher`.
    """

    differentiates_twice: ClassVar[bool] = False
    learns_variance: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    times: TimeSampling = field(default_factory=UniformTimes, kw_only=True)
    coupling: Coupling = field(default_factory=Independent, kw_only=True)

    def check(self, process: Process) -> None:
        """Reject a process on which this objective is not defined.

        Raises:
            ParameterError: With the reason.
        """
        if not (self.couples or self.coupling.independent):
            problem = f"{type(self).__name__} assumes that noise and data are independent. Use Denoising."
            raise ParameterError("coupling", problem)
        self.times.check(process)

    def check_model(self, model: Model) -> None:
        """Reject a model that cannot be trained with this objective: by default see `check`.

        Raises:
            ParameterError: With the reason.
        """
        self.check(model.process)

    def with_teacher(self, teacher: Denoiser) -> Objective[Model]:
        """The objective with the model that it needs, which is frozen and gets the states of the model in training.

        Args:
            teacher: A model of the same process, samples and conditions, on the same device; see `check_model`.

        Raises:
            ParameterError: If the objective needs no teacher.
        """
        raise ParameterError("teacher", f"{type(self).__name__} needs no teacher. Leave it out.")

    @property
    def stages(self) -> int:
        """The parts that training is divided into, each with an objective of its own; see `next_stage`.

        They are of equal length, but the last is twice as long (as in Salimans & Ho 2022, section 5).
        """
        return 1

    def next_stage(self, average: Denoiser) -> Objective[Model]:
        """The objective of the next part of the training.

        Args:
            average: The model with the averaged weights at the end of this part: a frozen copy.
        """
        raise NotImplementedError(f"{type(self).__name__} has one stage")

    def noise_shape(self, model: Model, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise that a sample of this shape needs: by default its own."""
        return shape

    def batch_losses(self, model: Model, x: Tensor, uniform: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample of a batch, (B,); see `unidiff.training.trainable.Loss`."""
        process = model.process
        times, table = self.times.draw(process, uniform), process.native_times()
        if table is not None and not process.basis.shape:  # the levels of all its entries are few numbers
            rows = torch.searchsorted(table, times).clamp(max=len(table) - 1)
            if torch.equal(table[rows], times):  # on the host
                return self.losses_at(model, x, rows.to(x.device, non_blocking=True), noise, **cond)
        u0 = process.basis.forward(x)
        return self.losses(model, u0, noise, process.level(times, u0), **cond)

    def losses_at(self, model: Model, x: Tensor, rows: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """As `batch_losses`, at entries of the process's table: indices from 0, (B,) int64 on the device of x."""
        u0 = model.process.basis.forward(x)
        level = table_levels(model.process, u0.ndim, u0.device, u0.dtype).map(lambda value: value[rows])
        return self.losses(model, u0, noise, level, **cond)

    @abstractmethod
    def losses(self, denoiser: Model, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,).

        Args:
            denoiser: The model in training.
            u0: Clean data in mode coordinates, (B, *modes).
            eps: Standard normal noise, (B, *noise_shape(denoiser, modes)).
            level: One time per sample, from `process.level(t, u0)`.
            **cond: Conditions, each (B, ...).
        """


@lru_cache(maxsize=16)
def table_levels(process: Process, ndim: int, device: torch.device, dtype: torch.dtype) -> Level:
    """The levels of a process's table, as of a batch of states with `ndim` axes; a step picks rows without the host."""
    table = process.native_times()
    assert table is not None
    return process.level(table, torch.empty(len(table), *[1] * (ndim - 1), device=device, dtype=dtype))


def entry_below(process: Process, level: Level, like: Tensor) -> tuple[Level, Tensor]:
    """The levels one entry of a process's table below those of a batch of states.

    Returns:
        The levels, and whether the batch's are those of the first entry, (B,): then they are their own.
    """
    table = table_levels(process, like.ndim, like.device, like.dtype)
    times = torch.as_tensor(table.time).flatten()
    t = torch.as_tensor(level.time, device=like.device, dtype=times.dtype).flatten().contiguous()
    index = torch.searchsorted((times[1:] + times[:-1]) / 2, t)  # the nearest: t was rounded to the data's dtype
    rows = (index - 1).clamp(min=0)
    return table.map(lambda value: value[rows]), index == 0
