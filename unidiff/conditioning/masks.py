"""Inpainting and uncropping as conditions: the known pixels, and a mask of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.conditioning.palette import ImageConditioning
from unidiff.errors import ParameterError, require, require_whole

__all__ = ["MaskedImages", "RandomMasks", "Uncropping"]


@dataclass(frozen=True)
class MaskedImages(ImageConditioning):
    """An image of which a part is masked out, and the mask as a further channel: 1 is known, 0 is unknown.

    Unknown pixels are 0. Palette fills them with normal noise instead, and has no mask channel. All zeros, the dropped
    condition, is the image of which no pixel is known. The loss is taken over all pixels (Palette's over the unknown
    ones); `compose` puts the known ones back.
    """

    @abstractmethod
    def known(self, uniform: Tensor, *sizes: int) -> Tensor:
        """The mask, (B, *sizes) bool, a function of uniform draws, (B, draws - 1)."""

    def channels(self, shape: tuple[int, ...]) -> int:
        """One more than the images have."""
        return shape[0] + 1

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The known pixels and the mask."""
        return self._masked(x0, self.known(uniform, *x0.shape[2:]).to(x0.device)[:, None])

    @staticmethod
    def _masked(x0: Tensor, known: Tensor) -> Tensor:
        """The condition (B, C + 1, *sizes) of images (B, C, *sizes) with the mask `known`, (B, 1, *sizes) bool."""
        return torch.cat([torch.where(known, x0, 0.0), known.to(x0.dtype)], dim=1)

    def baseline(self, image: Tensor) -> Tensor:
        """Unknown pixels filled with the mean of the known ones, by channel."""
        pixels, known = image[:, :-1], image[:, -1:]
        axes = tuple(range(2, image.ndim))
        mean = (pixels * known).sum(axes, keepdim=True) / known.sum(axes, keepdim=True).clamp(min=1)
        return torch.where(known > 0, pixels, mean)

    def as_image(self, image: Tensor) -> Tensor:
        """The image, mid-grey where it is unknown."""
        return image[:, :-1]

    def from_user(self, image: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """The known pixels of a user's image, and the mask; see `ImageConditioning.from_user`."""
        if known is None:
            raise ParameterError("mask", f"{type(self).__name__} requires a mask: the pixels to be inpainted.")
        return self._masked(image[None], known[None, None])[0]

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The samples with the known pixels put back exactly, mask y + (1 - mask) x."""
        pixels, known = cond["image"][:, :-1].to(x), cond["image"][:, -1:].to(x.device)
        return torch.where(known > 0, pixels, x)


@dataclass(frozen=True)
class RandomMasks(MaskedImages):
    """Random rectangles masked out of an image; see `MaskedImages`.

    Of a signal intervals are masked, of a volume or video boxes.

    Args:
        rectangles: How many, at least 1; they may overlap.
        smallest: Least side of a rectangle along each axis, as a share of the image's, above 0.
        largest: Largest side, as a share, at most 1.
    """

    rectangles: int = 2
    smallest: float = 0.2
    largest: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("rectangles", self.rectangles, 1, 1000)
        require(0 < self.smallest <= 1, "smallest", self.smallest, "a fraction above 0, at most 1")
        require(self.smallest <= self.largest <= 1, "largest", self.largest, f"a fraction from {self.smallest:g} to 1")

    @property
    def draws(self) -> int:
        """Four for each rectangle, and one for dropout."""
        return 1 + 4 * self.rectangles

    def known(self, uniform: Tensor, *sizes: int) -> Tensor:
        """The mask, (B, *sizes) bool: sides and positions of the rectangles are uniform over the integers.

        Args:
            uniform: Height, width, top and left of each rectangle in turn, as uniform draws, (B, 4 * rectangles). A
                signal needs width and left alone. Depth and front of a volume's are the last 27 bits of height and top,
                which are independent of the first 26.
            *sizes: Sizes in pixels, as (H, W).
        """
        tall, wide, top, left = uniform.unflatten(1, (self.rectangles, 4)).unbind(-1)
        deep, front = tall * 2**26 % 1, top * 2**26 % 1
        masked = torch.ones(len(uniform), self.rectangles, *[1] * len(sizes), dtype=torch.bool, device=uniform.device)
        for axis, (length, position) in zip(range(-1, -len(sizes) - 1, -1), ((wide, left), (tall, top), (deep, front))):
            span = self._span(length, position, sizes[axis])
            masked = masked & span.reshape(*span.shape[:2], *[1] * (len(sizes) + axis), -1, *[1] * (-1 - axis))
        return ~masked.any(1)

    def _span(self, length: Tensor, position: Tensor, size: int) -> Tensor:
        """Which of `size` pixels a side covers, (B, rectangles, size)."""
        shortest = max(1, round(self.smallest * size))
        longest = max(shortest, round(self.largest * size))
        covered = shortest + (length * (longest - shortest + 1)).floor()
        first = (position * (size - covered + 1)).floor()
        pixel = torch.arange(size, device=length.device)
        return (pixel >= first[..., None]) & (pixel < (first + covered)[..., None])


@dataclass(frozen=True)
class Uncropping(MaskedImages):
    """A part of an image at one of its borders masked out, to be extended: the task "uncropping" of Palette.

    The border is one of the two ends of an axis, each as likely as the others; see `MaskedImages`.

    Args:
        share: Share of the axis that is unknown, above 0 and below 1, rounded to whole pixels, at least one (none of
            an axis of one pixel).
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share < 1, "share", self.share, "a fraction above 0 and below 1")

    @property
    def draws(self) -> int:
        """One for the border, and one for dropout."""
        return 2

    def known(self, uniform: Tensor, *sizes: int) -> Tensor:
        """The mask, (B, *sizes) bool; see `MaskedImages.known`."""
        border = (uniform[:, 0] * 2 * len(sizes)).long()
        known = torch.ones(len(uniform), *sizes, dtype=torch.bool, device=uniform.device)
        for axis, size in enumerate(sizes):
            place = torch.arange(size, device=uniform.device).reshape(-1, *[1] * (len(sizes) - axis - 1))
            unknown = min(size - 1, max(1, round(self.share * size)))
            for end, inside in ((2 * axis, place >= unknown), (2 * axis + 1, place < size - unknown)):
                known &= inside | (border != end).reshape(-1, *[1] * len(sizes))
        return known
