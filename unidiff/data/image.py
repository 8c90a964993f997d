"""Square images of one size: read from a file, or resized from a stack in memory."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unidiff.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode", "resize"]


def decode(path: Path | BytesIO, size: int, channels: int, name: str = "") -> Tensor:
    """Read an image, (channels, size, size) uint8: its centre square, resized (bicubic, antialiased).

    Args:
        path: The file, or its content. Of an animation, the first frame is taken.
        size: Height and width, in pixels.
        channels: 1 for grey, 3 for colour.
        name: What messages call it; its path if empty.

    Raises:
        DataError: If the file is not a readable image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            ends = _ends(opened)
            return _square(_plain(ImageOps.exif_transpose(opened), ends, "L" if channels == 1 else "RGB"), size)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name or path} is not a readable image ({error}). Delete it or replace it.") from error


def _square(image: Image, size: int) -> Tensor:
    """The centre square of an image in mode "L" or "RGB", resized, (C, size, size) uint8."""
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    # Whole pixels: half a pixel of offset would blur an image that needs no resizing at all.
    left, top = (width - short) // 2, (height - short) // 2
    square = image.resize((size, size), Resampling.BICUBIC, box=(left, top, left + short, top + short))
    pixels = torch.from_numpy(np.array(square, dtype=np.uint8)).reshape(size, size, -1)
    return pixels.permute(2, 0, 1).contiguous()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize a stack, (N, C, H, W) to (N, C, size, size) uint8: bilinear, antialiased, pixel centres at half-integers.

    Bilinear weights are positive and sum to 1, so no value leaves 0..255. A stack of that size is returned itself.
    """
    if images.shape[-2:] == (size, size):
        return images
    result = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    batch = 2000  # the float copies stay near 10 MB where all of MNIST would take 250 MB
    for source, target in zip(images.split(batch), result.split(batch)):
        scaled = interpolate(source.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
        target.copy_(scaled.round_().clamp_(0, 255))
    return result


def _plain(image: Image, ends: tuple[int, int] | None, mode: str) -> Image:
    """The image in mode "L" or "RGB": grey of more than 8 bits reduced to 8, transparent pixels laid on white."""
    from PIL import Image

    if ends is not None:  # Pillow's own conversion would clip all above 255 to white
        black, white = ends
        values = np.asarray(image).astype(np.float64)
        if white > 255 and 1 < values.max() <= 255:
            notice = (
                f"an image of values up to {white} has none above {values.max():.0f}, so it is read as almost black"
            )
            warnings.warn(f"{notice}. If it is not meant to be, save it with 8 bits.", stacklevel=2)
        grey = 255 * ((values - black) / (white - black))
        image = Image.fromarray(np.round(grey).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)


def _ends(image: Image) -> tuple[int, int] | None:
    """The values of black and white of an opened file; None where Pillow's conversion to 8 bits is right.

    Pillow scales the values of a PNG, PGM or JPEG 2000 to 16 bits, but returns those of a TIFF as they are stored.
    Raises a ValueError if the format defines none: 32-bit, signed and floating-point numbers.
    """
    tags: dict[int, Any] = dict(getattr(image, "tag_v2", {})) if image.format == "TIFF" else {}
    signed = 2 in tags.get(339, ())  # SampleFormat
    if image.mode == "F" or signed or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        values = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise ValueError(
            f"its pixels are {values}, whose range is undefined; save it with 8 or 16 bits, or use ArrayFile"
        )
    if not image.mode.startswith("I"):
        return None
    largest = 2 ** int(tags.get(258, (16,))[0]) - 1  # BitsPerSample
    return (largest, 0) if tags.get(262) == 0 else (0, largest)  # PhotometricInterpretation: 0 is WhiteIsZero
