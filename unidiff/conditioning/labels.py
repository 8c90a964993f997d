"""The class of each sample as a condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidiff.condition import NULL
from unidiff.conditioning.base import Conditioning, Examples
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, require

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels(Conditioning):
    """The class of each sample, as the condition `label`; the null class, -1, at random (Ho & Salimans 2022, alg. 1).

    Args:
        dropout: Probability that a sample's class is left unsaid, from 0 to 1. With 0 the model never learns what data
            are without a class, and cannot be guided.
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.dropout <= 1, "dropout", self.dropout, "a number from 0 to 1")

    def network(self, data: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
        """`classes`, as many as the data have; see `Conditioning.network`."""
        if "classes" not in given:
            raise ParameterError("backbone", "this network has no parameter `classes`, so it cannot be conditioned.")
        written: int | None = given["classes"]
        if written is None and data.classes is None:
            problem = f"only reading {data} would tell how many classes it has. Write the number here."
            raise ParameterError("backbone.classes", problem)
        if None not in (written, data.classes) and written != data.classes:
            problem = f"{written} was given; {data} has {data.classes} classes. Leave it out."
            raise ParameterError("backbone.classes", problem)
        return {"classes": written or data.classes}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Reject data without labels, or with more classes than the network knows; see `Conditioning.check`."""
        if source.labels is None:
            raise DataError(f"{source.name} has no labels, so no network can be told its classes. Drop `conditioning`.")
        most = int(source.labels.max())
        if classes is None or most >= classes:
            known = "no classes" if classes is None else f"{classes} classes"
            raise DataError(f"{source.name} has the label {most}, but the network knows {known}, counted from 0.")

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The labels, -1 where the first uniform draw is below `dropout`; see `Conditioning.conditions`."""
        assert label is not None
        return {"label": label.masked_fill(uniform[:, 0] < self.dropout, NULL)}

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """All classes in turn; see `Conditioning.examples`."""
        return Examples({"label": torch.arange(count) % (classes or 1)})
