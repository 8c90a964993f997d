"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: data without a download."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from unidiff.data.base import Dataset, TensorSource, content_checksum, require_split
from unidiff.data.image import resize
from unidiff.errors import require, require_whole

__all__ = ["Digits", "GreySquares", "fallback_digits", "require_fallback"]

TRAIN = 1500  # the first 1500 images are the train split, the last 297 the test split


class GreySquares(Dataset):
    """Grey images in ten classes.

    Args:
        size: Height and width in pixels, at least 8.
    """

    size: int  # a field of the subclasses

    classes: ClassVar[int] = 10

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, size, size)."""
        return (1, self.size, self.size)


@dataclass(frozen=True)
class Digits(GreySquares):
    """scikit-learn's digits (Alpaydin & Kaynak, 1998): 1,500 images to train on, the last 297 to test.

    Grey values 0..16 become round(255 v / 16). Sizes other than 8 are interpolated (bilinear). The checksum is the
    SHA-256 of the split's 8x8 pixels as uint8.
    """

    size: int = 8

    features: ClassVar[str] = "digits"

    def open(self, split: str = "train") -> TensorSource:
        """Read the split from the installed package; see `Dataset.open`."""
        require_split(split)
        digits = _scikit_learn_digits()
        rows = slice(None, TRAIN) if split == "train" else slice(TRAIN, None)
        small = torch.from_numpy(digits.images[rows]).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.tensor(digits.target[rows])
        checksum = content_checksum(small)
        return TensorSource(resize(small, self.size), f"Digits {split}", checksum, None, labels, tuple("0123456789"))


@functools.cache
def _scikit_learn_digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()


def require_fallback(fallback: str | None) -> None:
    """Raise a ParameterError unless `fallback` is None or "digits", in any case."""
    known = fallback is None or (isinstance(fallback, str) and fallback.lower() == "digits")
    require(known, "fallback", fallback, 'None (missing data are an error) or "digits" (used instead)')


def fallback_digits(name: str, why: str, size: int, channels: int, split: str) -> TensorSource:
    """The digits, (N, channels, size, size), instead of the data `name`, which are unavailable: `why`."""
    digits = Digits(size).open(split)
    upscaled = f", upscaled to {size}x{size}," if size > 8 else ""
    sentence = f"{name} is unavailable ({why}); using scikit-learn's 8x8 digits{upscaled} instead."
    values = digits.values.repeat(1, channels, 1, 1)
    return TensorSource(values, digits.name, digits.checksum, sentence, digits.labels, digits.class_names)
