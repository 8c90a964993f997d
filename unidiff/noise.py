"""Random numbers as an argument: each sample has its own stream, so it does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unidiff.errors import require

__all__ = ["Noise", "Seeded"]

# Given a tensor, standard normal noise of its shape, dtype and device.
Noise = Callable[[Tensor], Tensor]


class Seeded:
    """One stream of standard normal noise per sample.

    Sample i of a batch draws from a generator seeded with `seeds[i]` alone: it is the same picture in a batch of 1, in
    a batch of 64, or on another device (numbers are drawn on the CPU, in float32 or, for a float64 state, in float64,
    which is another stream).

    Args:
        seeds: One integer of at least 0 per sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        require(all(seed >= 0 for seed in seeds), "seeds", seeds, "integers >= 0")
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """The next draw: (B, *shape) as `like`, with B the number of seeds."""
        if len(like) != len(self._generators):
            raise ValueError(f"{len(like)} samples asked of {len(self._generators)} streams of noise.")
        drawn = torch.empty(like.shape, dtype=torch.float32 if like.dtype.itemsize <= 4 else like.dtype)
        for row, generator in zip(drawn, self._generators):
            row.normal_(generator=generator)
        return drawn.to(like.device, like.dtype, non_blocking=True)
