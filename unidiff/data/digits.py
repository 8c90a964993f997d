"""The 1,797 handwritten digits of 8x8 pixels that come inside scikit-learn: data with no download at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unidiff.data.base import Dataset, TensorSource, require_split
from unidiff.data.resize import resize
from unidiff.errors import require_whole

__all__ = ["Digits", "stand_in"]

TRAIN = 1500  # the first 1500 images are the train split, the last 297 the test split


@dataclass(frozen=True)
class Digits(Dataset):
    """scikit-learn's embedded digits (Alpaydin & Kaynak, 1998): 1,500 images to train on, the last 297 to test.

    Grey values 0..16 become round(255 v / 16). Sizes other than 8 are interpolated (bilinear). The checksum is the
    SHA-256 of the split's 8x8 pixels as uint8.

    Args:
        size: Height and width in pixels, at least 8.
    """

    size: int = 8

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, size, size)."""
        return (1, self.size, self.size)

    @property
    def classes(self) -> int:
        """10."""
        return 10

    def open(self, split: str = "train") -> TensorSource:
        """Read the split; nothing can be missing, for the images are part of an installed package."""
        require_split(split)
        from sklearn.datasets import load_digits

        found = load_digits()
        part = slice(None, TRAIN) if split == "train" else slice(TRAIN, None)
        small = torch.from_numpy(found.images[part]).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(found.target[part]).long()
        plain = TensorSource(small, f"Digits {split}")
        names = tuple(str(digit) for digit in range(10))
        return TensorSource(resize(small, self.size), plain.name, plain.checksum, None, labels, names)


def stand_in(wanted: str, why: str, size: int, channels: int, split: str) -> TensorSource:
    """The digits in place of data that are not available, with a sentence that says so.

    Args:
        wanted: Name of the data that are not available.
        why: Why they could not be had, a phrase.
        size: Height and width wanted, in pixels.
        channels: 1, or 3 to repeat the grey channel.
        split: "train" or "test".

    Returns:
        (N, channels, size, size) digits whose `stand_in` is set.
    """
    digits = Digits(size).open(split)
    enlarged = f", enlarged to {size}x{size}," if size > 8 else ""
    sentence = f"{wanted} could not be had ({why}); the 8x8 digits of scikit-learn{enlarged} stand in."
    values = digits.values.repeat(1, channels, 1, 1)
    return TensorSource(values, digits.name, digits.checksum, sentence, digits.labels, digits.class_names)
