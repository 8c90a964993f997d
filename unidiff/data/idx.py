"""The IDX file format of MNIST: two zero bytes, a type byte, the number of axes, sizes big-endian, then the values."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np

from unidiff.errors import DataError

__all__ = ["REMEDY", "parse", "unpack"]

REMEDY = "Delete it, so that it is fetched again, or give another root."

UINT8 = 0x08  # the type byte of unsigned bytes, the only one MNIST uses


def unpack(path: Path, packed: bytes) -> bytes:
    """Decompress the file's content if its name ends in .gz; give it back unchanged otherwise.

    Args:
        path: Where it was read; for the name and for messages.
        packed: The file's bytes.

    Raises:
        DataError: If it cannot be decompressed: cut short, damaged, or not gzip.
    """
    if path.suffix != ".gz":
        return packed
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        raise DataError(
            f"{path} cannot be decompressed ({error}): it is cut short or damaged. Its {len(packed)} compressed bytes "
            f"have the md5 {found}."
        ) from error


def parse(path: Path, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Read the values of an IDX file of unsigned bytes and hold its header against what is expected.

    Args:
        path: Where it was read, for messages.
        content: The file's bytes, decompressed.
        shape: The shape it must have.

    Returns:
        Values of that shape, uint8. Read-only, on the memory of `content`.

    Raises:
        DataError: If the magic number, the number of axes, a size, or the length is not what it must be.
    """
    start = 4 + 4 * len(shape)
    if len(content) < start:
        raise DataError(f"{path} has {len(content)} bytes, too few for the header of an IDX file. {REMEDY}")
    magic = (0, 0, UINT8, len(shape))
    if tuple(content[:4]) != magic:
        raise DataError(
            f"{path} begins with the bytes {list(content[:4])}; an IDX file of {len(shape)} axes of unsigned bytes "
            f"begins with {list(magic)}. {REMEDY}"
        )
    found = struct.unpack(f">{len(shape)}I", content[4:start])
    if found != shape:
        raise DataError(f"{path} says that it holds values of shape {found}; {shape} is expected. {REMEDY}")
    if len(content) - start != np.prod(shape):
        raise DataError(
            f"{path} holds {len(content) - start} values where its header promises {np.prod(shape)}. {REMEDY}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
