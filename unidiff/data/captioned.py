"""Digits in two colours with captions whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.data.base import Dataset, TensorSource
from unidiff.data.digits import Digits
from unidiff.errors import require_whole
from unidiff.memory import require_memory
from unidiff.noise import generator_of

__all__ = ["CaptionedDigits", "CaptionedSource"]

_TEST = 297  # images in the smaller split of the digits


@dataclass(frozen=True)
class CaptionedDigits(Dataset):
    """scikit-learn's digits in colour, with captions such as "a red three on blue".

    A pixel of grey value g in [0, 1] is ground + g (ink - ground), ink and ground being two different `COLOURS`. A
    fifth of the pairs of digit and ink, those with (digit + 2 ink) mod 5 = 0, is held out: the captions of the train
    split have none of them, those of the test split no others. The checksum is that of `Digits`.

    Args:
        copies: How often each digit appears, in colours of its own.
        size: Height and width in pixels, at least 8.
        seed: Seed of the colours.
    """

    COLOURS: ClassVar[dict[str, tuple[int, int, int]]] = {
        "red": (1, -1, -1),
        "green": (-1, 1, -1),
        "blue": (-1, -1, 1),
        "yellow": (1, 1, -1),
        "white": (1, 1, 1),
        "black": (-1, -1, -1),
    }
    DIGITS: ClassVar[tuple[str, ...]] = tuple("zero one two three four five six seven eight nine".split())  # noqa: SIM905
    words: ClassVar[tuple[str, ...]] = ("a", "on", *COLOURS, *DIGITS)
    longest: ClassVar[int] = 5

    copies: int = 4
    size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("copies", self.copies, 1, 1000)
        require_whole("size", self.size, 8, 8192)
        require_whole("seed", self.seed, 0, 2**62)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return (3, self.size, self.size)

    def open(self, split: str = "train") -> TensorSource:
        """The digits of the split in their colours; see `Dataset.open`."""
        least = 12 * _TEST * self.copies * self.size**2  # bytes
        what = f"{self.copies} copies of {self.size}x{self.size} pixels"
        require_memory("copies", least, what, "Lower the copies or the size.")
        grey = Digits(self.size).open(split)
        assert grey.labels is not None
        generator = generator_of(self.seed + (split == "test"))
        count = self.copies * len(grey)
        digit = grey.labels.repeat(self.copies)
        # Inks of a digit that its split has, by rank: held out are those with 2 ink = -digit mod 5.
        inks = torch.arange(len(self.COLOURS))
        allowed = ((digit[:, None] + 2 * inks) % 5 == 0) == (split == "test")
        ink = torch.multinomial(allowed.double(), 1, generator=generator)[:, 0]
        ground = (ink + torch.randint(1, len(inks), (count,), generator=generator)) % len(inks)
        colours = torch.tensor(list(self.COLOURS.values()), dtype=torch.float32)[:, :, None, None]
        amount = (grey.batch(torch.arange(len(grey))).repeat(self.copies, 1, 1, 1) + 1) / 2
        values = torch.lerp(colours[ground], colours[ink], amount)
        word = {name: number for number, name in enumerate(self.words)}
        first_colour, first_digit = word["red"], word["zero"]
        a, on = (torch.full((count,), word[name]) for name in ("a", "on"))
        captions = torch.stack([a, first_colour + ink, first_digit + digit, on, first_colour + ground], 1)
        return CaptionedSource(values, captions, f"CaptionedDigits {split}", grey.checksum)


class CaptionedSource(TensorSource):
    """Samples, (N, *shape), with captions, (N, L), in place of labels."""

    def __init__(self, values: Tensor, captions: Tensor, name: str, checksum: str) -> None:
        super().__init__(values, name, checksum)
        self.captions = captions

    def examples(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
        """With the captions; see `OpenDataset.examples`."""
        return self.batch(indices, device), self.captions[indices.cpu()]
