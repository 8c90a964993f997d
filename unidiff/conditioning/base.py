"""The interface of every conditioning: conditions made from clean data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset

__all__ = ["Conditioning", "Examples"]


class Examples(NamedTuple):
    """Conditions that show what was learnt.

    Attributes:
        cond: The conditions by name, each with a row per sample.
        truth: The data that they were made from, (B, *shape); None where a sample has no one truth.
    """

    cond: dict[str, Any]
    truth: Tensor | None = None


@dataclass(frozen=True)
class Conditioning(ABC):
    """Conditions made from the data, for a network that is trained with them."""

    @property
    @abstractmethod
    def dropout(self) -> float:
        """Probability that a sample's conditions are left unsaid, from 0 to 1; with 0 the model cannot be guided."""

    @property
    def draws(self) -> int:
        """Uniform numbers that each sample needs in training, at least 1: all that is random about its conditions."""
        return 1

    def network(self, data: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor arguments by which the network of a recipe knows the conditions; none by default.

        Args:
            data: The data.
            given: The network's arguments as the recipe has them.

        Raises:
            ParameterError: If the network or the data do not fit.
        """
        return {}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Reject opened data that cannot be conditioned on, before anything is written.

        Raises:
            DataError: With the reason.
        """
        return

    @abstractmethod
    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The conditions of a batch: a function of its arguments, row by row.

        Args:
            x0: The clean data, (B, *shape), on any device.
            label: Their classes, (B,), on the CPU; None where the data have none.
            uniform: Draws of the uniform distribution on [0, 1), (B, draws) float64 on the CPU. The first of each row
                decides whether it is left unsaid.

        Returns:
            Tensors with B rows by name.
        """

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """The conditions of `count` samples of the test split, chosen once and for all, and these samples.

        Raises:
            DataError: If the data have no test split.
        """
        source, generator = data.open("test"), torch.Generator().manual_seed(0)
        order = torch.randperm(len(source), generator=generator)  # a folder is sorted, and its mirror images follow it
        chosen = order[torch.arange(count) % len(order)]
        x0, label = source.batch(chosen), None if source.labels is None else source.labels[chosen]
        uniform = torch.rand(count, self.draws, generator=generator, dtype=torch.float64)
        uniform[:, 0] = 1.0  # no condition is dropped
        return Examples(self.conditions(x0, label, uniform), x0)

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Samples with what the condition knows exactly put back, (B, *shape); most conditions know nothing exactly."""
        return x
