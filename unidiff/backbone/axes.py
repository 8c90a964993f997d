"""What depends on the number of axes of a sample: layers for each rank, patches as channels, frames as samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.errors import is_whole, require

__all__ = [
    "CONVOLUTIONS",
    "POOLS",
    "downsample",
    "fold_patches",
    "fold_time",
    "name_samples",
    "require_shape_of_rank",
    "unfold_patches",
    "unfold_time",
    "upsample",
]

# By the number of axes of a sample behind the channels, its rank.
CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS: dict[int, type[nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d]] = {
    1: nn.AvgPool1d,
    2: nn.AvgPool2d,
    3: nn.AvgPool3d,
}


def require_shape_of_rank(shape: object, ranks: Sequence[int] = (1, 2, 3)) -> None:
    """Raise a ParameterError unless this is the shape of a sample of one of these ranks, with its channels first."""
    valid = isinstance(shape, (tuple, list)) and len(shape) - 1 in ranks and all(map(is_whole, shape))
    names = {1: "(channels, length)", 2: "(channels, height, width)", 3: "(channels, depth, height, width)"}
    require(valid, "shape", shape, f"{' or '.join(names[rank] for rank in ranks)}, integers >= 1")


def name_samples(sides: Sequence[int]) -> str:
    """Samples with these sizes behind their channels, in words: "images of 28x28 pixels"."""
    noun, unit = {1: ("signals", "values"), 2: ("images", "pixels"), 3: ("volumes", "voxels")}[len(sides)]
    return f"{noun} of {'x'.join(map(str, sides))} {unit}"


def fold_time(x: Tensor) -> Tensor:
    """Frames as samples: videos, (B, C, D, *sizes), to images, (B D, C, *sizes)."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_time(x: Tensor, count: int) -> Tensor:
    """The inverse of `fold_time` for `count` videos."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def fold_patches(x: Tensor, patch: int) -> Tensor:
    """Patches as channels, (B, C, *sizes) to (B, C patch^rank, *sizes / patch); of images, `F.pixel_unshuffle`."""
    rank = x.ndim - 2
    split = x.reshape(*x.shape[:2], *(size for n in x.shape[2:] for size in (n // patch, patch)))
    inner, outer = range(3, 2 * rank + 2, 2), range(2, 2 * rank + 2, 2)
    return split.permute(0, 1, *inner, *outer).flatten(1, 1 + rank)


def unfold_patches(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold_patches`; of images, `F.pixel_shuffle`."""
    rank, sizes = x.ndim - 2, x.shape[2:]
    split = x.reshape(len(x), -1, *[patch] * rank, *sizes)
    pairs = (axis for i in range(rank) for axis in (2 + rank + i, 2 + i))
    return split.permute(0, 1, *pairs).reshape(len(x), split.shape[1], *(n * patch for n in sizes))


def downsample(channels: int, rank: int = 2) -> nn.Module:
    """Halve every axis by a strided convolution; (B, C, *sizes) -> (B, C, *sizes / 2)."""
    return CONVOLUTIONS[rank](channels, channels, 3, stride=2, padding=1)


class _Repeated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return mapped


class _Upsample1d(_Repeated, nn.Conv1d):
    pass


class _Upsample2d(_Repeated, nn.Conv2d):
    pass


class _Upsample3d(_Repeated, nn.Conv3d):
    pass


def upsample(channels: int, rank: int = 2) -> nn.Module:
    """Double every axis by repeating values, then a convolution; (B, C, *sizes) -> (B, C, *2 sizes)."""
    return (_Upsample1d, _Upsample2d, _Upsample3d)[rank - 1](channels, channels, 3, padding=1)
