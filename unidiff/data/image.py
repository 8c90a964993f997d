"""Square images of one size: read from a file, or resized from a stack in memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unidiff.errors import DataError, UnidiffError
from unidiff.memory import require_memory
from unidiff.reading import Unreadable, open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FILE_LIMIT", "decode", "formats", "open_image", "resize"]

FILE_LIMIT = 1 << 29  # bytes of an image file
PIXEL_LIMIT = 1 << 26  # 8192 x 8192, the largest `size`: RGB takes 200 MB
# Formats that Pillow identifies but reads only with another program, or that hold no image.
_UNREAD = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
_DEFLATE = 1032  # the largest ratio by which deflate can compress


@lru_cache(maxsize=1)
def formats() -> dict[str, str]:
    """The image formats that are read, by the extensions of their files in lower case: ".png" is "PNG"."""
    from PIL import Image

    registered = Image.registered_extensions().items()
    return {extension: name for extension, name in registered if name in Image.OPEN and name not in _UNREAD}


@contextmanager
def open_image(path: Path | BytesIO, name: str = "") -> Iterator[Image]:
    """Open an image, of a named format and a limited size, without decoding it.

    Args:
        path: The file, or its content.
        name: What messages call it; its path if empty.

    Raises:
        DataError: If it is not a readable image, also where decoding it in the block shows that.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = path if isinstance(path, BytesIO) else open_regular(path, FILE_LIMIT)
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            with Image.open(file, formats=sorted(set(formats().values()))) as opened:
                _require_size(opened, size)
                yield opened
    except Unreadable as error:
        raise DataError(
            f"{name or path} is not a readable image ({error.problem}). Delete it or replace it."
        ) from error
    except (UnidiffError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        problem = f"{name or path} is not a readable image (its content is in no format that is read)"
        raise DataError(f"{problem}. Delete it or replace it.") from error
    except Exception as error:  # Pillow has errors of many kinds for damaged files
        reason = str(error) or type(error).__name__
        raise DataError(f"{name or path} is not a readable image ({reason}). Delete it or replace it.") from error


def _require_size(image: Image, size: int) -> None:
    """Raise a ValueError if an image of a file of `size` bytes declares more pixels than are read or can be there."""
    declared = f"it declares {image.width} x {image.height} pixels"
    if math.prod(image.size) > PIXEL_LIMIT:
        raise ValueError(f"{declared}, and at most {PIXEL_LIMIT:,} are read; reduce it")
    if image.format == "PNG" and math.prod(image.size) > 8 * _DEFLATE * size:  # at least one bit each
        raise ValueError(f"{declared}, which its {size} bytes cannot hold")


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
    from PIL import ImageOps

    with open_image(path, name) as opened:
        ends = _ends(opened)
        return _square(_plain(ImageOps.exif_transpose(opened), ends, "L" if channels == 1 else "RGB"), size)


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
    needed, what = math.prod(images.shape[:2]) * size**2, f"{len(images):,} images of {size}x{size} pixels"
    require_memory("size", needed, what, "Lower the size.")
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
