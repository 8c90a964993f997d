"""Moments of latents over the data, and the scale that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from unidiff.arguments import plain_arguments
from unidiff.codec.codec import Autoencoder
from unidiff.memory import enough_memory
from unidiff.noise import generator_of

if TYPE_CHECKING:
    from unidiff.data.base import OpenDataset

__all__ = ["LatentStatistics", "measure_latents"]

_MOST = 10_000  # images
_BATCH = 100


class LatentStatistics(NamedTuple):
    """Statistics of the output of `Autoencoder.encode`.

    Attributes:
        scale: The autoencoder's scale that would give a variance of 1.
        mean: Mean of all elements.
        std: Their standard deviation about it.
        channel_mean: Mean of each channel.
        channel_std: Standard deviation of each channel.
        pictures: Number of images that were encoded.
    """

    scale: float
    mean: float
    std: float
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    pictures: int


@plain_arguments
@enough_memory("Use smaller images or a smaller codec.")
@torch.no_grad()
def measure_latents(
    codec: Autoencoder, source: OpenDataset, seed: int = 0, *, on_batch: Callable[[], None] = lambda: None
) -> LatentStatistics:
    """Measure latents over at most 10,000 images, chosen at random by the seed.

    The scale is 1 / s, with s^2 the variance of all elements of the latents about their common mean (Rombach et al.
    2022, appendix G). It is one number: the proportions of channels are preserved, and diffusers' format has one.
    `on_batch` is called before each batch.
    """
    order = torch.randperm(len(source), generator=generator_of(seed))[:_MOST].sort().values
    device = next(codec.parameters()).device
    parts = []
    for rows in order.split(_BATCH):
        on_batch()
        parts.append(codec.encode(source.batch(rows, device)).cpu().double())
    z = torch.cat(parts)
    std, others = float(z.std(correction=0)), (0, *range(2, z.ndim))
    return LatentStatistics(
        codec.layout.scale / std,
        float(z.mean()),
        std,
        tuple(z.mean(others).tolist()),
        tuple(z.std(others, correction=0).tolist()),
        len(z),
    )
