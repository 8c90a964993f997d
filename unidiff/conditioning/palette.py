"""Image conditions (Palette, Saharia et al. 2022): a measurement of the clean image, concatenated to the noisy one.

Training on pairs (x0, y = a measurement of x0) with the plain denoising loss gives the conditional model: at each u and
y the loss E|x0 - f(u, y)|^2 is least at E[x0 | u, y], whose score is that of p(u | y) (Batzolis et al. 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unidiff.backbone.axes import name_samples
from unidiff.basis import DCT
from unidiff.condition.base import Condition
from unidiff.condition.image import Image
from unidiff.conditioning.base import Conditioning, augmented, check_augmentation, check_dropout, require_samples
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, require, require_whole

__all__ = ["Colorization", "ImageConditioning", "SuperResolution"]

_NDIM = (2, 3, 4)  # axes of a sample, its channels too: signals, images, volumes or videos
_ENLARGEMENTS = {1: "linear", 2: "bicubic", 3: "trilinear"}
_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _block_means(x: Tensor, factor: int) -> Tensor:
    """The mean of each block of samples, (B, C, *sizes), of `factor` along each axis: (B, C, *sizes / factor)."""
    means: Tensor = _MEANS[x.ndim - 2](x, factor)
    return means


def _blurred(x: Tensor, width: float) -> Tensor:
    """The heat equation on the grid, no flux at the border, at time width^2 / 2: weights >= 0 of variance width^2."""
    if width == 0:
        return x
    basis = DCT(tuple(x.shape[2:]))
    rates = sum((2 - 2 * w.cos() for w in basis.frequencies()), torch.zeros(()))
    return basis.inverse(basis.forward(x) * (-(width**2) / 2 * rates).exp().to(x)).clamp(-1, 1)  # beyond by rounding


@dataclass(frozen=True, kw_only=True)
class ImageConditioning(Conditioning):
    """A measurement of the clean image, as the condition `image` of the same sizes, in [-1, 1].

    Signals (C, L) and volumes or videos (C, D, H, W) are measured as images are, along each axis.

    Args:
        dropout: Probability that the condition is dropped (set to zeros), from 0 to 1; above 0 the model can be guided
            by `ClassifierFree`.
    """

    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    @property
    def names(self) -> tuple[str, ...]:
        """`image`."""
        return ("image",)

    @abstractmethod
    def channels(self, shape: tuple[int, ...]) -> int:
        """Channels C' of the condition for images (C, *sizes); a ParameterError if they have no such condition."""

    @abstractmethod
    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The condition, (B, C', *sizes).

        Args:
            x0: Clean images, (B, C, *sizes) in [-1, 1].
            uniform: Uniform draws for its randomness, (B, draws - 1).
        """

    @abstractmethod
    def baseline(self, image: Tensor) -> Tensor:
        """A model-free estimate of the clean images, (B, C, *sizes), from the conditions, (B, C', *sizes)."""

    @abstractmethod
    def as_image(self, image: Tensor) -> Tensor:
        """The conditions, (B, C', *sizes), as images to show, (B, C, *sizes)."""

    def measurement_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the measurement that a user may have instead of a whole image; (C, *sizes) by default."""
        return shape

    def from_user(self, image: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """The condition from a user's image, (C', *sizes).

        Args:
            image: A whole image, (C, *sizes) in [-1, 1], or one of `measurement_shape`.
            shape: Shape of the samples, (C, *sizes).
            known: Where the image is known, (*sizes) bool; required by masks, an error with other conditions.

        Raises:
            ParameterError: If a mask is missing, or passed to a condition without masks.
        """
        if known is not None:
            raise ParameterError("mask", f"{type(self).__name__} takes no mask. Leave it out.")
        return self.measure(image[None], image.new_zeros(1, self.draws - 1))[0]

    @property
    def measured(self) -> ImageConditioning:
        """Itself."""
        return self

    def built_for(self, data: Dataset) -> tuple[Condition, ...]:
        """An image; see `Conditioning.built_for`."""
        return (Image(self.channels(data.shape), tuple(data.shape[1:])),)

    def network(self, data: Dataset, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """`image`, the channels of the condition; see `Conditioning.network`."""
        if len(data.shape) not in _NDIM or data.coded:
            samples = "latents" if data.coded else data.shape
            problem = f"must be used with signals, images or volumes; the samples of {data} are {samples}"
            raise ParameterError("conditioning", problem)
        channels = self.channels(data.shape)
        if "image" not in arguments:
            return super().network(data, arguments)
        if arguments["image"] not in (None, channels):
            problem = f"must be {channels}, the channels of {self!r}, got {arguments['image']}. Leave it out."
            raise ParameterError("backbone.image", problem)
        return {"image": channels}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError for data that are not images with such a condition."""
        try:
            allowed = "used with signals, images or volumes"
            require(len(source.shape) in _NDIM, "conditioning", source.shape, allowed)
            self.channels(source.shape)
        except ParameterError as error:
            raise DataError(f"{source.name} has samples of shape {source.shape}: {error}") from error

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The measurement, zeros where the first draw is below `dropout`; see `Conditioning.conditions`."""
        dropped = (uniform[:, 0] < self.dropout).to(x0.device).reshape(-1, *[1] * (x0.ndim - 1))
        return {"image": self.measure(x0, uniform[:, 1:]).masked_fill(dropped, 0.0)}

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """The measurement of samples clipped to [-1, 1]; see `Conditioning.from_samples`."""
        return super().from_samples(x.clamp(-1, 1), shape, uniform)


@dataclass(frozen=True)
class SuperResolution(ImageConditioning):
    """The mean of each block of factor x factor pixels, or values of a signal, or voxels, repeated over the block.

    Palette enlarges bicubically; either enlargement determines the block means, so the information is the same.

    Args:
        factor: Side of a block in pixels, at least 2; a divisor of every size.
        noise: Standard deviation of noise that is added to the block means, in training and in sampling; they are then
            clipped to [-1, 1]. At least 0. See `augmented`.
        blur: Standard deviation, in block means, of a blur of them before the noise, in training and in sampling: the
            blur augmentation of Ho et al. 2022 at one width, by the heat equation (docs/cascades.md). From 0 to 1e6.
    """

    factor: int = 4
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("factor", self.factor, 2)
        check_augmentation(self.noise)
        require(not isinstance(self.blur, bool) and 0 <= self.blur <= 1e6, "blur", self.blur, "a number from 0 to 1e6")

    @property
    def draws(self) -> int:
        """One for dropout, and one for the noise if there is any."""
        return 1 + (self.noise > 0)

    def channels(self, shape: tuple[int, ...]) -> int:
        """As many as the images have."""
        allowed = f"a divisor of {name_samples(shape[1:])}"
        require(all(side % self.factor == 0 for side in shape[1:]), "conditioning.factor", self.factor, allowed)
        return shape[0]

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The block means with their blur and noise, repeated over their blocks."""
        small = _blurred(_block_means(x0, self.factor), self.blur)
        if self.noise:
            small = augmented(small, self.noise, uniform[:, 0]).clamp(-1, 1)
        return self._repeated(small)

    def baseline(self, image: Tensor) -> Tensor:
        """The block means enlarged: of images bicubically, of signals and volumes linearly."""
        small, mode = _block_means(image, self.factor), _ENLARGEMENTS[image.ndim - 2]
        return F.interpolate(small, scale_factor=self.factor, mode=mode, align_corners=False).clamp(-1, 1)

    def as_image(self, image: Tensor) -> Tensor:
        """The blocks themselves."""
        return image

    def measurement_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, *sizes / factor)."""
        return (shape[0], *(side // self.factor for side in shape[1:]))

    def from_user(self, image: Tensor, shape: tuple[int, ...], known: Tensor | None = None) -> Tensor:
        """From a low-resolution image, or from a whole one by `measure`; see `ImageConditioning.from_user`."""
        if image.shape == self.measurement_shape(shape):
            image = self._repeated(image[None])[0]
        return super().from_user(image, shape, known)

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """From low-resolution samples, or from whole ones; see `ImageConditioning.from_samples`."""
        small = self.measurement_shape(shape)
        require_samples(self, x, small, shape)
        return super().from_samples(self._repeated(x) if x.shape[1:] == small else x, shape, uniform)

    def _repeated(self, small: Tensor) -> Tensor:
        for axis in range(2, small.ndim):
            small = small.repeat_interleave(self.factor, axis)
        return small


@dataclass(frozen=True)
class Colorization(ImageConditioning):
    """The luma of a colour image, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as in Pillow."""

    def channels(self, shape: tuple[int, ...]) -> int:
        """1, for colour images."""
        if shape[0] != 3:
            problem = f"must be used with images of 3 channels, got {shape[0]}. Use colour data, such as ImageFolder."
            raise ParameterError("conditioning", problem)
        return 1

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The grey image."""
        red, green, blue = x0.unbind(1)
        return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]

    def baseline(self, image: Tensor) -> Tensor:
        """Grey in all three channels."""
        return image.expand(-1, 3, *image.shape[2:])

    def as_image(self, image: Tensor) -> Tensor:
        """The grey image."""
        return self.baseline(image)

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The colours of the samples with the luma of the condition, exactly.

        With y the given luma and Y(x) that of a sample, y + s (x - Y(x)): x - Y(x) has luma 0, so any s keeps y.
        It is 1, or as near to 1 as lets the pixel lie in [-1, 1]. A condition of zeros is none, and changes nothing.
        """
        luma = cond["image"].to(x)
        colour = x - self.measure(x, x)
        room = torch.where(colour > 0, 1 - luma, 1 + luma) / colour.abs().clamp(min=torch.finfo(x.dtype).tiny)
        composed = luma + room.amin(1, keepdim=True).clamp(0, 1) * colour
        return torch.where((luma == 0).flatten(1).all(1).reshape(-1, *[1] * (x.ndim - 1)), x, composed)
