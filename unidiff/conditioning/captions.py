"""The caption of each sample as a condition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unidiff.condition.base import NULL, Condition
from unidiff.condition.sequence import Tokens
from unidiff.conditioning.base import Conditioning, Examples, check_dropout
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError

__all__ = ["Caption", "Captions"]


@dataclass(frozen=True)
class Caption(Tokens):
    """A caption of words of a list, each the number of its place in the list; see `Tokens`.

    Args:
        length: Largest number of words, from 1.
        word_list: The words.
        name: Its keyword.
    """

    vocabulary: int = field(init=False, repr=False)
    word_list: tuple[str, ...]
    name: str = field(default="caption", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", len(self.word_list))
        super().__post_init__()

    def parse(self, value: Any) -> Tensor:
        """The words of a caption, (number of words,) int64, in any case; see `Condition.parse`.

        Raises:
            ParameterError: If one is not in the list.
        """
        if not isinstance(value, str):
            try:
                numbers = super().parse(value)
            except (ValueError, TypeError, RuntimeError):
                numbers = torch.zeros(())
            if numbers.ndim != 1 or numbers.is_floating_point():
                raise ParameterError(self.name, f"must be words, such as {self.word_list[0]!r}, got {value!r}")
            return numbers
        number = {word: place for place, word in enumerate(self.word_list)}
        words = value.lower().split()
        if unknown := [word for word in words if word not in number]:
            raise ParameterError(self.name, f"{unknown[0]!r} is not one of its words, {', '.join(self.word_list)}")
        if len(words) > self.length:
            raise ParameterError(self.name, f"must be at most {self.length} words, got {len(words)}")
        return torch.tensor([number[word] for word in words], dtype=torch.int64)


@dataclass(frozen=True)
class Captions(Conditioning):
    """The caption of each sample, as the condition `caption`; the empty caption at random.

    Args:
        dropout: Probability that a sample's caption is dropped, from 0 to 1. With 0 the model has no unconditional
            branch and cannot be guided.
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    @property
    def names(self) -> tuple[str, ...]:
        """`caption`."""
        return ("caption",)

    def built_for(self, data: Dataset) -> tuple[Condition, ...]:
        """A `Caption` of the words of the data; see `Conditioning.built_for`."""
        if not data.words:
            raise ParameterError(
                "conditioning", f"{data} has no captions. Choose captioned data, such as CaptionedDigits."
            )
        return (Caption(data.longest, data.words),)

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError for data without captions."""
        _, captions = source.examples(torch.zeros(1, dtype=torch.int64))
        if captions is None or captions.ndim != 2:
            raise DataError(f"{source.name} has no captions. Choose captioned data, such as CaptionedDigits.")

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The captions, empty where the first draw is below `dropout`; see `Conditioning.conditions`."""
        assert label is not None
        return {"caption": label.masked_fill(uniform[:, :1] < self.dropout, NULL)}

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """None: samples do not determine their caption; see `Conditioning.from_samples`."""
        return {}

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """Captions of the test split, without their samples; see `Conditioning.examples`."""
        return super().examples(data, count, classes)._replace(truth=None)
