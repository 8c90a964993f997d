"""The class of each sample as a condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidiff.condition.base import NULL
from unidiff.conditioning.base import Conditioning, Examples, check_dropout
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import ParameterError

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels(Conditioning):
    """The class of each sample, as the condition `label`; the null class, -1, at random (Ho & Salimans 2022, alg. 1).

    Args:
        dropout: Probability that a sample's class is dropped, from 0 to 1. With 0 the model has no unconditional
            branch and cannot be guided.
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    @property
    def names(self) -> tuple[str, ...]:
        """`label`."""
        return ("label",)

    def network(self, data: Dataset, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """`classes`, as many as the data have; see `Conditioning.network`."""
        if "classes" not in arguments:
            raise ParameterError("backbone", "this network has no parameter `classes`, so it cannot be conditioned.")
        classes: int | None = arguments["classes"]
        if classes is None and data.classes is None:
            problem = f"the number of classes of {data} is unknown until it is read. Set it here."
            raise ParameterError("backbone.classes", problem)
        if None not in (classes, data.classes) and classes != data.classes:
            problem = f"must be {data.classes}, the classes of {data}, got {classes}. Leave it out."
            raise ParameterError("backbone.classes", problem)
        return {"classes": classes or data.classes}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError for data without labels, or with more classes than the network."""
        source.check_labels(classes or 0)

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The labels, -1 where the first uniform draw is below `dropout`; see `Conditioning.conditions`."""
        assert label is not None
        return {"label": label.masked_fill(uniform[:, 0] < self.dropout, NULL)}

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """None: samples do not determine their class; see `Conditioning.from_samples`."""
        return {}

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """All classes in turn; see `Conditioning.examples`."""
        return Examples({"label": torch.arange(count) % (classes or 1)})
