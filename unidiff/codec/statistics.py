"""What latents look like over the data, and the scale that follows."""

from __future__ import annotations

from typing import NamedTuple

import torch

from unidiff.codec.codec import Autoencoder
from unidiff.data.base import OpenDataset
from unidiff.noise import generator_of

__all__ = ["LatentStatistics", "measure_latents"]

_MOST = 10_000  # pictures that are enough for every figure
_BATCH = 100


class LatentStatistics(NamedTuple):
    """Of the latents that `Autoencoder.encode` gives.

    Attributes:
        scale: What the codec's scale would have to be for a variance of 1.
        mean: Mean of all numbers.
        std: Their standard deviation about it.
        channel_mean: Mean of each channel.
        channel_std: Standard deviation of each channel.
        pictures: How many were encoded.
    """

    scale: float
    mean: float
    std: float
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    pictures: int


@torch.no_grad()
def measure_latents(codec: Autoencoder, source: OpenDataset, seed: int = 0) -> LatentStatistics:
    """Measure latents over at most 10,000 pictures, chosen at random.

    The scale is 1 / s, with s^2 the variance of all numbers of the latents about their one mean (Rombach et al. 2022,
    appendix G). It is one number, so that channels keep their proportions and a pipeline of diffusers can carry it.

    Args:
        codec: The codec.
        source: The pictures.
        seed: Seed of the choice.
    """
    order = torch.randperm(len(source), generator=generator_of(seed))[:_MOST].sort().values
    device = next(codec.parameters()).device
    parts = [codec.encode(source.batch(part, device)).cpu().double() for part in order.split(_BATCH)]
    z = torch.cat(parts)
    std = float(z.std(correction=0))
    return LatentStatistics(
        codec.layout.scale / std,
        float(z.mean()),
        std,
        tuple(z.mean((0, 2, 3)).tolist()),
        tuple(z.std((0, 2, 3), correction=0).tolist()),
        len(z),
    )
