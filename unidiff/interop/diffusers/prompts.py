"""Captions as a text pipeline of diffusers takes them: a conditioning for fine-tuning it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unidiff.condition.base import Condition
from unidiff.conditioning.base import Conditioning, Examples, check_dropout
from unidiff.data.base import Dataset, OpenDataset
from unidiff.data.captioned_folder import text_of
from unidiff.errors import DataError
from unidiff.interop.diffusers.texts import kept_texts
from unidiff.pretrained import local_folder
from unidiff.search_paths import expand

__all__ = ["Prompts"]

_KEPT = 50_000_000  # numbers of encoded captions that are kept: 200 MB


@dataclass(frozen=True)
class Prompts(Conditioning):
    """The caption of each sample, as the condition `prompt`, encoded by a pipeline's own frozen text encoders.

    The data have captions in words of any kind, as `CaptionedFolder` has. The encoders stay in their folder; they run
    on the CPU, and each caption is encoded once as long as 200 MB hold them all.

    Args:
        folder: The pipeline that diffusers saved, or its name on the hub.
        size: Height and width of the images; null for those that it was trained on.
        dropout: Probability that a sample's caption is dropped, from 0 to 1.
    """

    folder: str
    size: tuple[int, int] | None = None
    dropout: float = 0.1
    _encoded: OrderedDict[str, Tensor] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    @property
    def names(self) -> tuple[str, ...]:
        """`prompt`."""
        return ("prompt",)

    @property
    def prompt(self) -> Condition:
        """The condition; reads the text encoders."""
        folder: Path = local_folder(expand(self.folder, "folder"), False)
        return kept_texts(folder, None if self.size is None else (self.size[0], self.size[1])).prompt

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError for data without captions."""
        _, captions = source.examples(torch.zeros(1, dtype=torch.int64))
        if captions is None or captions.ndim != 2:
            raise DataError(f"{source.name} has no captions. Use data with captions, such as CaptionedFolder.")

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The captions, none where the first draw is below `dropout`; see `Conditioning.conditions`."""
        assert label is not None
        dropped, empty = (uniform[:, 0] < self.dropout).tolist(), self.prompt.null(1, uniform)[0].float()
        rows = [empty if none else self._encode(text_of(row)) for row, none in zip(label, dropped)]
        return {"prompt": torch.stack(rows).float()}

    def _encode(self, text: str) -> Tensor:
        if text not in self._encoded:
            row = self.prompt.parse(text)
            while self._encoded and (len(self._encoded) + 1) * row.numel() > _KEPT:
                self._encoded.popitem(last=False)
            self._encoded[text] = row
        return self._encoded[text]

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """None: samples do not determine their caption; see `Conditioning.from_samples`."""
        return {}

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """Captions of the test split, without their samples; see `Conditioning.examples`."""
        return super().examples(data, count, classes)._replace(truth=None)

    def null(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """What the pipeline takes for no prompt."""
        return {name: self.prompt.null(len(value), value) for name, value in cond.items()}
