"""Pictures as conditions (Palette, Saharia et al. 2022): what is seen of a clean picture is joined to the noisy one.

Training on pairs (x0, y = what is seen of x0) with the plain denoising loss gives the conditional model, for at each u
and y the loss E|x0 - f(u, y)|^2 is least at E[x0 | u, y], whose score is that of p(u | y) (Batzolis et al. 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unidiff.conditioning.base import Conditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, require, require_whole
from unidiff.inverse.operators import BlockMean

__all__ = ["Colorization", "ImageConditioning", "RandomMasks", "SuperResolution"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; it is how Pillow makes a colour picture grey


@dataclass(frozen=True, kw_only=True)
class ImageConditioning(Conditioning):
    """What is seen of a clean picture, as the condition `image` of the same height and width, in [-1, 1].

    Args:
        dropout: Probability that the picture is left unsaid (all zeros), from 0 to 1; above 0 the model can be guided
            by `ClassifierFree`.
    """

    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.dropout <= 1, "dropout", self.dropout, "a number from 0 to 1")

    @abstractmethod
    def channels(self, shape: tuple[int, ...]) -> int:
        """Channels C' of the condition for pictures of a shape (C, H, W).

        Raises:
            ParameterError: If there is no such condition of these pictures.
        """

    @abstractmethod
    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """What is seen of clean pictures, (B, C', H, W).

        Args:
            x0: The pictures, (B, C, H, W) in [-1, 1].
            uniform: Draws that decide what is random about it, (B, draws - 1).
        """

    @abstractmethod
    def baseline(self, image: Tensor) -> Tensor:
        """A guess at the pictures without any model, (B, C, H, W), from the conditions, (B, C', H, W)."""

    @abstractmethod
    def as_image(self, image: Tensor) -> Tensor:
        """The conditions, (B, C', H, W), as pictures to look at, (B, C, H, W)."""

    def measurement_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a picture as it is seen, which a user may have instead of a whole one; (C, H, W) as a rule."""
        return shape

    def from_user(self, picture: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """The condition that a user's picture makes, (C', H, W).

        Args:
            picture: A whole picture, (C, H, W) in [-1, 1], or one of `measurement_shape`.
            shape: Shape of the samples, (C, H, W).
            known: Where the picture is known, (H, W) bool; for conditions that leave pixels out, and only for them.

        Raises:
            ParameterError: If a mask is missing or has no meaning here.
        """
        if known is not None:
            raise ParameterError("mask", f"{type(self).__name__} sees all of a picture. Leave the mask out.")
        return self.measure(picture[None], picture.new_zeros(1, self.draws - 1))[0]

    def network(self, data: Dataset, given: Mapping[str, Any]) -> dict[str, Any]:
        """`image`, the channels of the condition; see `Conditioning.network`."""
        if len(data.shape) != 3:
            raise ParameterError("conditioning", f"it is made of images; the samples of {data} are {data.shape}.")
        if data.coded:
            raise ParameterError("conditioning", f"it is made of pictures; the samples of {data} are latents.")
        channels = self.channels(data.shape)
        if "image" not in given:
            raise ParameterError("backbone", "this network has no parameter `image`, so it cannot be conditioned.")
        if given["image"] not in (None, channels):
            problem = f"{given['image']} was given; {self!r} makes {channels} channels. Leave it out."
            raise ParameterError("backbone.image", problem)
        return {"image": channels}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Reject data that are no such images; see `Conditioning.check`."""
        try:
            if len(source.shape) != 3:
                raise ParameterError("conditioning", "it is made of images.")
            self.channels(source.shape)
        except ParameterError as error:
            raise DataError(f"{source.name} has samples of shape {source.shape}: {error.problem}") from error

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """What is seen, zeros where the first draw is below `dropout`; see `Conditioning.conditions`."""
        unsaid = (uniform[:, 0] < self.dropout).to(x0.device)
        return {"image": self.measure(x0, uniform[:, 1:]).masked_fill(unsaid[:, None, None, None], 0.0)}


@dataclass(frozen=True)
class SuperResolution(ImageConditioning):
    """The mean of each block of factor x factor pixels, repeated over the block.

    Repeated, smooth or small, it says the same: each can be had from the other (Palette enlarges bicubically).

    Args:
        factor: Side of a block in pixels, at least 2; a divisor of height and width.
        dropout: As in `ImageConditioning`.
    """

    factor: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("factor", self.factor, 2)

    def channels(self, shape: tuple[int, ...]) -> int:
        """As many as the pictures have; see `ImageConditioning.channels`."""
        _, height, width = shape
        if height % self.factor or width % self.factor:
            problem = f"must divide the images' {height} x {width} pixels, got {self.factor}"
            raise ParameterError("conditioning.factor", problem)
        return shape[0]

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The block means A^+ A x0; see `ImageConditioning.observe`."""
        return self._enlarged(self._mean(x0).apply(x0))

    def baseline(self, image: Tensor) -> Tensor:
        """The small picture enlarged bicubically; see `ImageConditioning.guess`."""
        small = self._mean(image).apply(image)
        return F.interpolate(small, scale_factor=self.factor, mode="bicubic", align_corners=False).clamp(-1, 1)

    def as_image(self, image: Tensor) -> Tensor:
        """The blocks themselves; see `ImageConditioning.visible`."""
        return image

    def measurement_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H / factor, W / factor); see `ImageConditioning.measurement_shape`."""
        return (shape[0], shape[1] // self.factor, shape[2] // self.factor)

    def from_user(self, picture: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """A small picture enlarged, or a whole one reduced and enlarged; see `ImageConditioning.told`."""
        if picture.shape == self.measurement_shape(shape):
            picture = self._enlarged(picture)
        return super().from_user(picture, shape, known)

    def _mean(self, x: Tensor) -> BlockMean:
        return BlockMean(tuple(x.shape[-2:]), self.factor)

    def _enlarged(self, small: Tensor) -> Tensor:
        height, width = (n * self.factor for n in small.shape[-2:])
        return BlockMean((height, width), self.factor).transpose(small) * self.factor**2  # A^+ = factor^2 A^T


@dataclass(frozen=True)
class Colorization(ImageConditioning):
    """The grey of a colour picture, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Args:
        dropout: As in `ImageConditioning`.
    """

    def channels(self, shape: tuple[int, ...]) -> int:
        """One; see `ImageConditioning.channels`."""
        if shape[0] != 3:
            problem = f"colours have 3 channels, these images {shape[0]}. Use colour data, such as ImageFolder."
            raise ParameterError("conditioning", problem)
        return 1

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The grey picture; see `ImageConditioning.observe`."""
        red, green, blue = x0.unbind(1)
        return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]

    def baseline(self, image: Tensor) -> Tensor:
        """Grey in all three channels; see `ImageConditioning.guess`."""
        return image.expand(-1, 3, -1, -1)

    def as_image(self, image: Tensor) -> Tensor:
        """The grey picture; see `ImageConditioning.visible`."""
        return self.baseline(image)


@dataclass(frozen=True)
class RandomMasks(ImageConditioning):
    """A picture with random rectangles left out, and a further channel that says where: 1 is known, 0 is a hole.

    The holes hold 0. Palette fills them with normal noise, by which its network finds them; the mask says it outright,
    and what it covers is then without meaning. So zeros everywhere, the null picture, is one of which nothing is known.
    The loss counts all pixels (Palette's the holes alone): the known ones cost little, and are put back by `compose`.

    Args:
        rectangles: How many, at least 1; they may overlap, and so make other shapes.
        smallest: Least height and width of a rectangle, as a share of the picture's, above 0.
        largest: Largest height and width, as a share, at most 1.
        dropout: As in `ImageConditioning`.
    """

    rectangles: int = 2
    smallest: float = 0.2
    largest: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("rectangles", self.rectangles, 1, 1000)
        require(0 < self.smallest <= 1, "smallest", self.smallest, "a share above 0, at most 1")
        require(self.smallest <= self.largest <= 1, "largest", self.largest, f"a share from {self.smallest:g} to 1")

    @property
    def draws(self) -> int:
        """Four for each rectangle, and one for what is left unsaid."""
        return 1 + 4 * self.rectangles

    def channels(self, shape: tuple[int, ...]) -> int:
        """One more than the pictures have; see `ImageConditioning.channels`."""
        return shape[0] + 1

    def known(self, uniform: Tensor, height: int, width: int) -> Tensor:
        """Where nothing is left out, (B, H, W) bool: sides and places are uniform over the integers.

        Args:
            uniform: Height, width, top and left of each rectangle in turn, as uniform draws, (B, 4 * rectangles).
            height: H in pixels.
            width: W in pixels.
        """
        tall, wide, top, left = uniform.unflatten(1, (self.rectangles, 4)).unbind(-1)
        down = self._span(tall, top, height)[..., :, None]
        across = self._span(wide, left, width)[..., None, :]
        return ~(down & across).any(1)

    def _span(self, length: Tensor, place: Tensor, size: int) -> Tensor:
        """Which of `size` pixels a side covers, (B, rectangles, size)."""
        least = max(1, round(self.smallest * size))
        most = max(least, round(self.largest * size))
        covered = least + (length * (most - least + 1)).floor()
        first = (place * (size - covered + 1)).floor()
        pixel = torch.arange(size, device=length.device)
        return (pixel >= first[..., None]) & (pixel < (first + covered)[..., None])

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The known pixels and the mask; see `ImageConditioning.observe`."""
        return self.masked(x0, self.known(uniform, *x0.shape[2:]).to(x0.device)[:, None])

    @staticmethod
    def masked(x0: Tensor, known: Tensor) -> Tensor:
        """The condition (B, C + 1, H, W) of pictures (B, C, H, W) known where `known`, (B, 1, H, W) bool, says."""
        return torch.cat([torch.where(known, x0, 0.0), known.to(x0.dtype)], dim=1)

    def baseline(self, image: Tensor) -> Tensor:
        """The holes filled with the mean of what is known, by channel; see `ImageConditioning.guess`."""
        pixels, known = image[:, :-1], image[:, -1:]
        mean = (pixels * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
        return torch.where(known > 0, pixels, mean)

    def as_image(self, image: Tensor) -> Tensor:
        """The picture, mid-grey in its holes; see `ImageConditioning.visible`."""
        return image[:, :-1]

    def from_user(self, picture: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """The picture without what the user's mask leaves out; see `ImageConditioning.told`."""
        if known is None:
            raise ParameterError("mask", "RandomMasks does not know which pixels are to be drawn. Give a mask.")
        return self.masked(picture[None], known[None, None])[0]

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The samples with the known pixels exactly as they are, mask y + (1 - mask) x; see `Conditioning.compose`."""
        pixels, known = cond["image"][:, :-1].to(x), cond["image"][:, -1:].to(x.device)
        return torch.where(known > 0, pixels, x)
