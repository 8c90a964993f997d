"""Images as conditions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole
from unidiff.tensors import described

__all__ = ["Control", "Image"]


@dataclass(frozen=True)
class Image(Condition):
    """An image for each sample, floats (B, channels, *size) in [-1, 1]; all zeros is no condition.

    It is joined to the noisy image as further channels (Saharia et al. 2022, Palette). A model with image conditions
    requires one: without it the samples would silently be unconditional.

    Args:
        channels: Channels C', from 1.
        size: The axes after the channels, as (H, W); () for any.
        name: Its keyword.
    """

    channels: int
    size: tuple[int, ...] = ()
    name: str = field(default="image", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("channels", self.channels, 1, 65536)
        require(all(map(is_whole, self.size)), "size", self.size, "integers >= 1")

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"{(self.channels, *self.size)} for each sample (all zeros = unconditional)"

    @property
    def required(self) -> bool:
        """Yes."""
        return True

    def null(self, count: int, like: Tensor) -> Tensor:
        """All zeros, of the height and width of `like`."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return torch.zeros(count, self.channels, *(self.size or like.shape[2:]), device=like.device, dtype=dtype)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` images in [-1, 1]."""
        self.check_in_loop(value, count)
        if not bool((value.abs() <= 1.0001).all()):  # bicubic resizing and rounding may end a little outside
            low, high = float(value.min()), float(value.max())
            problem = f"must be in [-1, 1] (bytes: x / 127.5 - 1), got values in [{low:g}, {high:g}]"
            raise ParameterError(self.name, problem)
        return value

    def check_in_loop(self, value: Tensor, count: int) -> None:
        """See `Condition.check_in_loop`: dtype and shape, on every device."""
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2
        needed = (count, self.channels, *(self.size or (value.shape[2:] if fits else ())))
        if not fits or value.shape != needed:
            raise ParameterError(self.name, f"must be floats of shape {needed}, got {described(value)}")

    @property
    def joined(self) -> int:
        """All its channels."""
        return self.channels


@dataclass(frozen=True)
class Control(Image):
    """An image for each sample that a control branch sees, floats (B, channels, *size) in [-1, 1] (Zhang et al. 2023).

    It is not joined to the noisy image, and may be of another size. A guided model sees it in both predictions, unless
    guidance is to lead away from a black one: `ClassifierFree(model, scale, names=["control"])`.

    Args:
        channels: Channels C', from 1.
        size: The axes after the channels, (H, W).
        name: Its keyword.
    """

    name: str = field(default="control", kw_only=True)

    guides: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"an image of shape {self.file_shape} for each sample"

    @property
    def file_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of an image."""
        return (self.channels, *self.size)

    def null(self, count: int, like: Tensor) -> Tensor:
        """All -1: black."""
        return super().null(count, like) - 1

    @property
    def joined(self) -> int:
        """None of its channels."""
        return 0

    def several(self, value: Any) -> list[Any]:
        """The files of a list, or the one file; see `Condition.several` for numbers."""
        files = isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, str) for one in value)
        return list(value) if files else [value] if isinstance(value, str) else super().several(value)
