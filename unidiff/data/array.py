"""Samples from a .npy file, which stays on the disk and is mapped into memory."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset, require_split
from unidiff.errors import DataError, ParameterError, require
from unidiff.files import digest_of
from unidiff.search_paths import find

__all__ = ["ArrayFile"]

LAYOUTS = ("NCHW", "NHW", "NHWC", "ND")
ROUNDING = 1e-6  # how far beyond [-1, 1] an image may go: float32 arithmetic leaves that much


@dataclass(frozen=True)
class ArrayFile(Dataset):
    """An array of samples in a .npy file: images (N, C, H, W), (N, H, W) or (N, H, W, C), or vectors (N, D).

    Opening reads the file once, in pieces, to verify it; the checksum is the SHA-256 of the array's values in C order.
    Every tenth sample (9, 19, 29, ...) is the test split, the others the train split.

    Args:
        path: The .npy file. If relative, it is looked up as given, then under $UNIDIFF_DATA.
        low: The value that becomes -1. With `high`, no value may lie outside [low, high].
        high: The value that becomes 1. Without `low` and `high`, uint8 means 0 to 255, and floating-point values are
            taken as they are: finite, and in [-1, 1] if they are images.
        labels: A .npy file of (N,) integers >= 0, looked up likewise, or None.
        layout: The axes of the array: "NCHW", "NHW", "NHWC" or "ND". None takes it from the shape, where that leaves no
            doubt: three axes are grey images only if they are square with sides of at least 8, and four have their
            channels first unless only the last is at most 4. Signals (N, C, L) are read once reshaped to (N, C * L).
    """

    path: str
    low: float | None = None
    high: float | None = None
    labels: str | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))  # a Path is welcome; the repr is a recipe: plain text
        if self.labels is not None:
            object.__setattr__(self, "labels", os.fspath(self.labels))
        require(self.layout is None or self.layout in LAYOUTS, "layout", self.layout, " or ".join(LAYOUTS))
        require((self.low is None) == (self.high is None), "high", self.high, "low and high together, or neither")
        if self.low is not None and self.high is not None:
            require(math.isfinite(self.low), "low", self.low, "a finite number")
            require(self.low < self.high < math.inf, "high", self.high, f"a finite number above low = {self.low}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), with C = 1 for (N, H, W), or (D,). Reads the file's header.

        Raises:
            DataError: If the file is missing or is not an array of such a shape.
        """
        return tuple(self._samples().shape[1:])

    def _samples(self) -> np.ndarray:
        """The mapped array, (N, C, H, W) or (N, D)."""
        array = _map(find(self.path, "path"), "path")
        layout = self.layout or _layout(array.shape)
        if layout is None or len(layout) != array.ndim or 0 in array.shape:
            doubt = f", which is not {self.layout}" if self.layout else ", whose layout is not certain"
            allowed = "allowed are (N, C, H, W), (N, H, W), (N, H, W, C) and (N, D), with no size 0"
            remedy = "Give layout: NCHW, NHW or NHWC for images; reshape signals (N, C, L) to (N, C * L)"
            raise DataError(f"path: {self.path} holds an array of shape {array.shape}{doubt}; {allowed}. {remedy}.")
        if layout == "NHWC":
            return np.moveaxis(array, 3, 1)
        return array[:, None] if layout == "NHW" else array

    def open(self, split: str = "train") -> OpenDataset:
        """Map the file, verify all its values, and give one split.

        Raises:
            DataError: If a file is missing, damaged, holds Python objects, or values that are not finite or not in
                the range promised; if there are too few samples for a test split.
        """
        require_split(split)
        path, array = find(self.path, "path"), self._samples()
        low, high = self._range(array)
        checksum = _verify(path, array, low, high, assumed=self.low is None)
        labels = None if self.labels is None else _labels(find(self.labels, "labels"), len(array))
        held_out = torch.arange(len(array)) % 10 == 9
        rows = torch.nonzero(held_out if split == "test" else ~held_out).squeeze(1)
        if not len(rows):
            raise DataError(
                f"path: {path} holds {len(array)} samples; every tenth is held out for the test split, so at least 10 "
                f"are needed."
            )
        scale = (0.0, 1.0) if low is None or high is None else ((low + high) / 2, (high - low) / 2)
        return _ArraySource(array, rows, scale, f"{path.name} {split}", checksum, labels)

    def _range(self, array: np.ndarray) -> tuple[float | None, float | None]:
        """The values that become -1 and 1, or (None, None) if values are taken as they are."""
        if array.dtype.kind not in "uif":
            raise DataError(f"path: {self.path} holds values of type {array.dtype}; save it as uint8 or float32.")
        if self.low is None and array.dtype == np.uint8:
            return 0.0, 255.0
        if self.low is None and array.dtype.kind in "ui":
            raise ParameterError("low", f"{self.path} holds {array.dtype} values; give low and high, or save as uint8.")
        return self.low, self.high


class _ArraySource(OpenDataset):
    """Rows of a memory-mapped array, x -> (x - centre) / half on the fly."""

    def __init__(
        self,
        array: np.ndarray,
        rows: Tensor,
        scale: tuple[float, float],
        name: str,
        checksum: str,
        labels: Tensor | None,
    ) -> None:
        super().__init__(name, array.shape[1:], checksum, None, None if labels is None else labels[rows])
        self._array = array
        self._rows = rows
        self._centre, self._half = scale

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Take samples by index: (B,) integers in, (B, *shape) float32 out."""
        taken = self._array[self._rows[indices.cpu()].numpy()].astype(np.float64)
        return torch.from_numpy((taken - self._centre) / self._half).float().to(device)


def _map(path: Path, parameter: str) -> np.ndarray:
    """Map a .npy file into memory without reading its values. Python objects in it are an error, not unpickled."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{parameter}: {path} cannot be read as a .npy file of numbers ({error}). Save it with numpy.save, as "
            f"uint8 or float32."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{parameter}: {path} is an .npz archive. Save the one array with numpy.save.")
    return array


def _layout(shape: tuple[int, ...]) -> str | None:
    """The layout of an array of this shape; None if there is doubt."""
    if len(shape) == 3:
        return "NHW" if shape[1] == shape[2] >= 8 else None
    if len(shape) == 4:
        return None if shape[3] <= 4 < shape[1] else "NCHW"
    return "ND" if len(shape) == 2 else None


def _verify(path: Path, array: np.ndarray, low: float | None, high: float | None, assumed: bool) -> str:
    """Hold every value against its range, promised or assumed; returns the checksum of the values."""
    smallest, largest = math.inf, -math.inf

    def pieces() -> Iterator[memoryview]:
        nonlocal smallest, largest
        step = max(1, 2**24 // max(1, array[0].nbytes))  # about 16 MB
        for start in range(0, len(array), step):
            part = np.ascontiguousarray(array[start : start + step])
            if not np.isfinite(part).all():
                row = start + int(np.argmin(np.isfinite(part).reshape(len(part), -1).all(axis=1)))
                raise DataError(f"path: {path} holds NaN or infinity, first in sample {row}. Remove such samples.")
            smallest, largest = min(smallest, float(part.min())), max(largest, float(part.max()))
            yield part.data

    checksum = digest_of(pieces())
    values = f"values from {smallest:g} to {largest:g}"
    if low is not None and high is not None:
        slack = ROUNDING * (high - low)
        if smallest < low - slack or largest > high + slack:
            problem = f"{path} holds {values}, beyond low = {low:g} and high = {high:g}"
            raise DataError(f"path: {problem}. Give low and high that hold them.")
    elif array.ndim == 4 and max(-smallest, largest) > 1 + ROUNDING:
        ends = (0, 255) if smallest >= 0 and largest <= 255 else (smallest, largest)
        problem = f"{path} holds images with {values}; they must be in [-1, 1]"
        remedy = f"Give the values that become -1 and 1, for example low: {ends[0]:g}, high: {ends[1]:g}"
        raise DataError(f"path: {problem}. {remedy}.")
    if assumed and array.ndim == 4 and smallest >= 0 and 0 < largest <= 1:
        taken = "black and nearly black" if array.dtype == np.uint8 else "mid-grey to white"
        remedy = "If 0 is black and 1 white, give low: 0, high: 1"
        warnings.warn(f"{path} holds {values}, which are taken for {taken}. {remedy}.", stacklevel=3)
    return checksum


def _labels(path: Path, count: int) -> Tensor:
    """Read (count,) labels as int64."""
    found = _map(path, "labels")
    if found.shape != (count,) or found.dtype.kind not in "ui" or found.min() < 0:
        raise DataError(
            f"labels: {path} holds {found.dtype} values of shape {found.shape}; one integer of at least 0 is "
            f"needed for each of the {count} samples, shape ({count},)."
        )
    return torch.from_numpy(found.astype(np.int64))
