"""The edges of an image as a condition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.conditioning.palette import ImageConditioning
from unidiff.errors import require

__all__ = ["Edges"]


@dataclass(frozen=True)
class Edges(ImageConditioning):
    """Where the gradient of each channel is large, by Sobel's filter: 1 at edges, -1 elsewhere.

    The derivative along an axis is that of central differences, smoothed by (1, 2, 1) / 4 along the other axes; beyond
    the border the nearest value holds. Values count from 0 to 1: a step from black to white has the gradient 1/2.

    Args:
        threshold: Least length of the gradient at an edge, above 0 and below 1.
    """

    threshold: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.threshold < 1, "threshold", self.threshold, "a number above 0 and below 1")

    def channels(self, shape: tuple[int, ...]) -> int:
        """As many as the images have."""
        return shape[0]

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The edges."""
        return torch.where(gradient_length(x0 / 2) > self.threshold, 1.0, -1.0).to(x0.dtype)

    def baseline(self, image: Tensor) -> Tensor:
        """The edges themselves."""
        return image

    def as_image(self, image: Tensor) -> Tensor:
        """The edges themselves."""
        return image


def gradient_length(x: Tensor) -> Tensor:
    """The length of the gradient of each channel by Sobel's filter, per pixel; (B, C, *sizes) to the same."""
    axes, total = range(2, x.ndim), torch.zeros_like(x)
    for axis in axes:
        derivative = x
        for other in axes:
            before, after = _neighbours(derivative, other)
            derivative = (after - before) / 2 if other == axis else (before + 2 * derivative + after) / 4
        total = total + derivative**2
    return total.sqrt()


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The values before and after each along an axis, the nearest beyond the border."""
    size = x.shape[axis]
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, size - 1, 1)
    before = torch.cat([first, x.narrow(axis, 0, size - 1)], axis)
    return before, torch.cat([x.narrow(axis, 1, size - 1), last], axis)
