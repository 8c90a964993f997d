"""Images compressed by JPEG as a condition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from unidiff.backbone.axes import name_samples
from unidiff.basis import DCT
from unidiff.conditioning.palette import ImageConditioning
from unidiff.errors import require, require_whole
from unidiff.precision import precise

__all__ = ["JPEG"]

_BLOCK = DCT((8, 8))
# Quantisation of luminance and chrominance: ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = (
    """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
"""
    + "99 " * 32
)
# Rec. 601, of red, green and blue: ITU-T T.871, section 7.
_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


@dataclass(frozen=True)
class JPEG(ImageConditioning):
    """The image as JPEG keeps it, to be restored: the task "JPEG restoration" of Palette (Saharia et al. 2022).

    Each 8x8 block of luminance and chrominance is transformed by cosines, and its coefficients are rounded to multiples
    of a table (ITU-T T.81, annexes A and K). The chrominance keeps its resolution.

    Args:
        quality: From 1 to 100, as of the library of the Independent JPEG Group; at 5 blocks of 8x8 are plain to see.
    """

    quality: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("quality", self.quality, 1, 100)

    def channels(self, shape: tuple[int, ...]) -> int:
        """As many as the images have, 1 or 3."""
        fits = len(shape) == 3 and shape[0] in (1, 3)
        require(fits, "conditioning", name_samples(shape[1:]), "used with images of one or three channels")
        return shape[0]

    def measure(self, x0: Tensor, uniform: Tensor) -> Tensor:
        """The decompressed images."""
        values = ((x0.to(precise(x0.device)) + 1) * 127.5).round()
        colour = x0.shape[1] == 3
        to_ycbcr, to_rgb = _colours(x0.device)
        if colour:
            values = torch.einsum("yc,bchw->byhw", to_ycbcr, values)
            values[:, 1:] += 128
            values = values.round()
        values = self._rounded(values - 128) + 128
        if colour:
            values = values.round().clamp(0, 255)
            values[:, 1:] -= 128
            values = torch.einsum("cy,byhw->bchw", to_rgb, values)
        return (values.round().clamp(0, 255) / 127.5 - 1).to(x0.dtype)

    def _rounded(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), their coefficients rounded; beyond the border the nearest pixel is repeated."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
        table = _tables(self.quality, x.shape[1], x.device)
        blocks = _BLOCK.inverse((_BLOCK.forward(blocks) / table).round() * table)
        return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :height, :width]

    def baseline(self, image: Tensor) -> Tensor:
        """The compressed images themselves."""
        return image

    def as_image(self, image: Tensor) -> Tensor:
        """The compressed images themselves."""
        return image


@lru_cache(maxsize=64)
def _tables(quality: int, channels: int, device: torch.device) -> Tensor:
    """The table of each channel at this quality, (channels, 1, 1, 8, 8)."""
    with torch.inference_mode(False):
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        numbers = [[int(number) for number in table.split()] for table in (_LUMINANCE, _CHROMINANCE)]
        plain = torch.tensor([numbers[channel > 0] for channel in range(channels)], dtype=torch.float64)
        scaled = ((plain * percent + 50) / 100).floor().clamp(1, 255)
        return scaled.view(channels, 1, 1, 8, 8).to(device, precise(device))


@lru_cache(maxsize=64)
def _colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """The matrices from red, green and blue to luminance and chrominance, and back."""
    with torch.inference_mode(False):
        forward = torch.tensor(_YCBCR, dtype=torch.float64)
        return forward.to(device, precise(device)), torch.linalg.inv(forward).to(device, precise(device))
