"""What the tasks share that train a network on the noisy states of a process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from unidiff.conditioning.base import Conditioning
from unidiff.data.base import OpenDataset
from unidiff.errors import ParameterError
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.read import inside
from unidiff.run.execute import TrainingTask
from unidiff.run.origin import trained_names
from unidiff.text import first_line
from unidiff.training.trainable import Trainable

__all__ = ["ProcessTask"]

M = TypeVar("M", bound=Trainable)
N = TypeVar("N", bound=nn.Module)


class ProcessTask(TrainingTask[M], Generic[M, N]):
    """A task that trains a network on the noisy states of a process.

    Attributes:
        process: How data become noise.
    """

    process: Process

    @property
    def network(self) -> Blueprint[N]:
        """The network, not built yet: the field that has the name `key`."""
        return getattr(self, self.key)

    def __post_init__(self) -> None:
        super().__post_init__()
        modes, shape = self.process.basis.shape, self.data.shape
        if modes and modes != shape[-len(modes) :]:
            problem = f"must be {list(shape[-len(modes) :])}, as the samples of {self.data}, got {list(modes)}"
            raise ParameterError("process.shape", problem)
        written, conditions = self.network.arguments, self.conditions()
        try:
            needed = {} if conditions is None else conditions.network(self.data, written)
        except ParameterError as error:
            where = error.parameter.replace("backbone", self.key)
            if where == "conditioning" and not hasattr(self, where):  # the task itself asks it of the data
                where = "data"
            raise ParameterError(where, error.problem) from error
        made = () if conditions is None else conditions.made(self.data)
        of = {"classes": ("label",), "image": ("image",)}
        of["conditions"] = tuple(condition.name for condition in written.get("conditions") or ())
        for parameter, names in of.items():  # a conditioning that does not say what it makes may make any
            unset = written.get(parameter) and (parameter not in needed or parameter == "conditions")
            if unset and made is not None and {*names} - {*made}:
                kind = f" {names[0]}" if parameter != "conditions" else ""
                problem = f"it is set, but the recipe has no{kind} conditioning. Add one, or leave it out."
                raise ParameterError(f"{self.key}.{parameter}", problem)
        # With the arguments of its conditioning, so that the saved recipe has them.
        object.__setattr__(self, self.key, Blueprint(self.network.kind, {**written, **needed}))
        with inside(self.key, self.network):
            try:
                self.network.count(shape=self.data.shape)
            except ParameterError as error:
                if error.parameter != "shape":
                    raise
                raise ParameterError(self.key, f"it does not fit the samples of {self.data}: {error}") from error
            except (ValueError, TypeError, RuntimeError) as error:
                raise ParameterError(self.key, f"{self.network} cannot be built: {first_line(error)}") from error
        if self.train is not None:
            trained_names(self.sketch(), self.train)

    @abstractmethod
    def conditions(self) -> Conditioning | None:
        """See `TrainingTask.conditions`."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None for a model without labels."""
        return self.network.arguments.get("classes")

    def sketch(self) -> nn.Module:
        """See `TrainingTask.sketch`."""
        with torch.device("meta"):
            return self.network.build(shape=self.data.shape)

    def count_weights(self) -> int:
        """See `TrainingTask.count_weights`."""
        return self.network.count(shape=self.data.shape)

    @property
    def measures(self) -> bool:
        """Whether the process measures the data."""
        return self.process.measures

    def measure(self, source: OpenDataset) -> Mapping[str, Tensor]:
        """What the process measures of the data, all read once."""
        return self.process.fit(source.all_batches()).measured()

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        if (conditions := self.conditions()) is not None:
            conditions.check(source, self.classes)
