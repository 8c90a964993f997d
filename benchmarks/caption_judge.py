"""What captioned digits show, without a trained network: the judge that the benchmarks of text share.

A sample is compared with the training digits in every pair of two colours; the digit, the ink and the ground are what
most of the three nearest ones have.
"""

from __future__ import annotations

import torch
from torch import Tensor

import unidiff as ud
from unidiff.data.captioned import CaptionedDigits

COLOURS = torch.tensor(list(CaptionedDigits.COLOURS.values())).float()
INK, DIGIT, GROUND = 1, 2, 4  # places of the words in a caption
HEAD = f"{'':40s}  digit     ink  ground     all  rms of the nearest image"


def attributes(captions: Tensor) -> Tensor:
    """Digit, ink and ground of captions, (B, 3), as numbers from 0."""
    words = CaptionedDigits.words
    first_colour, first_digit = words.index("red"), words.index("zero")
    return torch.stack([captions[:, DIGIT] - first_digit, *(captions[:, n] - first_colour for n in (INK, GROUND))], 1)


def all_captions() -> Tensor:
    """The three hundred captions, (300, 5)."""
    words = CaptionedDigits.words
    a, on, first_colour, first_digit = (words.index(word) for word in ("a", "on", "red", "zero"))
    colours = range(len(COLOURS))
    parts = [(digit, ink, ground) for digit in range(10) for ink in colours for ground in colours if ink != ground]
    return torch.tensor([[a, first_colour + i, first_digit + d, on, first_colour + g] for d, i, g in parts])


def text(caption: Tensor) -> str:
    """The words of a caption."""
    return " ".join(CaptionedDigits.words[number] for number in caption)


class Judge:
    """The training digits in all colours."""

    def __init__(self) -> None:
        grey = ud.data.Digits().open()
        amount = (grey.batch(torch.arange(len(grey))) + 1) / 2
        pairs = [(ink, ground) for ink in range(len(COLOURS)) for ground in range(len(COLOURS)) if ink != ground]
        self.known = torch.cat(
            [torch.lerp(COLOURS[b, :, None, None], COLOURS[a, :, None, None], amount) for a, b in pairs]
        )
        assert grey.labels is not None
        broadcast = (torch.broadcast_tensors(grey.labels, *map(torch.tensor, pair)) for pair in pairs)
        self.shown = torch.cat([torch.stack([*each], 1) for each in broadcast])

    def judged(self, x: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of digit, ink and ground are those of the captions, (B, 3) bool; distances to the nearest, (B,)."""
        distance, nearest = torch.cdist(x.flatten(1), self.known.flatten(1)).topk(3, largest=False)
        return self.shown[nearest].mode(1).values == attributes(captions), distance[:, 0]

    def right(self, x: Tensor, captions: Tensor) -> Tensor:
        """Which of the three are right, (B, 3) bool."""
        return self.judged(x, captions)[0]

    def line(self, name: str, x: Tensor, captions: Tensor) -> Tensor:
        """Print how many samples show what their captions say; which of the three are right, (B, 3) bool."""
        right, distance = self.judged(x, captions)
        rms = float(distance.square().mean().div(x[0].numel()).sqrt())
        shares = "  ".join(f"{part:6.1%}" for part in [*right.double().mean(0), right.all(1).double().mean()])
        print(f"{name:40s} {shares}  {rms:.3f}", flush=True)
        return right
