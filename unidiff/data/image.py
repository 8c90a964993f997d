"""Read one image file as a square of a given size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode"]


def decode(path: Path, size: int, channels: int) -> Tensor:
    """Read an image, cut out the centre square, and resize that (bicubic, antialiased).

    Args:
        path: The file. Of an animation, the first frame is taken.
        size: Height and width wanted, in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        (channels, size, size) uint8.

    Raises:
        DataError: If the file is not a readable image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = _plain(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image ({error}). Delete it or replace it.") from error
    width, height = image.size
    short = min(width, height)
    # Whole pixels: half a pixel of offset would blur an image that needs no resizing at all.
    left, top = (width - short) // 2, (height - short) // 2
    square = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    return (
        torch.from_numpy(np.array(square, dtype=np.uint8)).reshape(size, size, channels).permute(2, 0, 1).contiguous()
    )


def _plain(image: Image, mode: str) -> Image:
    """The image in mode "L" or "RGB": 16-bit grey reduced to 8 bits, transparent pixels laid on white."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow's own conversion would clip everything above 255 to white
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values have more than 16 bits")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))  # 65535 / 257 = 255
    elif image.mode == "F":
        raise ValueError("it holds floating-point values; save them as .npy and use ArrayFile")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)
