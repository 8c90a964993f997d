"""Samples from a .npy file, which is mapped into memory."""

from __future__ import annotations

import math
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
from unidiff.precision import precise
from unidiff.reading import map_array
from unidiff.search_paths import find
from unidiff.text import count_of

__all__ = ["ArrayFile"]

LAYOUTS = ("NCHW", "NHW", "NHWC", "ND", "NCL", "NCDHW")
PIXELS = 4  # axes from which on values are those of pixels, in [-1, 1]
ROUNDING = 1e-6  # how far beyond [-1, 1] an image may go: float32 arithmetic leaves that much


@dataclass(frozen=True)
class ArrayFile(Dataset):
    """An array of samples in a .npy file: vectors, signals, images, volumes or videos.

    Opening reads the file once, in pieces, to verify it; the checksum is the SHA-256 of the array's values in C order.
    Every tenth sample (9, 19, 29, ...) is the test split, the others the train split.

    Args:
        path: The .npy file. If relative, it may be under $UNIDIFF_DATA.
        low: The value that becomes -1. With `high`, no value may lie outside [low, high].
        high: The value that becomes 1. Without `low` and `high`, uint8 means 0 to 255, and floating-point values are
            not scaled: finite, and in [-1, 1] if they are images, volumes or videos.
        labels: A .npy file of (N,) integers >= 0, which may be under $UNIDIFF_DATA likewise, or None.
        layout: The axes of the array: "ND" for vectors, "NCL" for signals, "NCHW", "NHW" or "NHWC" for images, "NCDHW"
            for volumes and videos. None infers vectors and images from an unambiguous shape: three axes are grey images
            only if they are square with sides of at least 8, and four have their channels first unless only the last
            is at most 4. Signals, volumes and videos must be named.
    """

    path: str
    low: float | None = None
    high: float | None = None
    labels: str | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        require(self.layout is None or self.layout in LAYOUTS, "layout", self.layout, " or ".join(LAYOUTS))
        require((self.low is None) == (self.high is None), "high", self.high, "low and high together, or neither")
        if self.low is not None and self.high is not None:
            require(math.isfinite(self.low), "low", self.low, "a finite number")
            require(self.low < self.high < math.inf, "high", self.high, f"a finite number > low = {self.low}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,) or (C, *sizes), with C = 1 for (N, H, W), from the file's header; may raise a DataError."""
        return tuple(self._samples().shape[1:])

    def _samples(self) -> np.ndarray:
        """The mapped array, (N, D) or (N, C, *sizes)."""
        array = map_array(find(self.path, "path"), "path")
        layout = self.layout or _layout(array.shape)
        if layout is None or len(layout) != array.ndim or 0 in array.shape:
            problem = f", which is not {self.layout}" if self.layout else ", whose layout is ambiguous"
            allowed = (
                "allowed are (N, D), (N, C, L), (N, C, H, W), (N, H, W), (N, H, W, C) and (N, C, D, H, W), no size 0"
            )
            remedy = "Set layout: NCL for signals, NCHW, NHW or NHWC for images, NCDHW for volumes and videos"
            raise DataError(f"path: {self.path} holds an array of shape {array.shape}{problem}; {allowed}. {remedy}.")
        if layout == "NHWC":
            return np.moveaxis(array, 3, 1)
        return array[:, None] if layout == "NHW" else array

    def open(self, split: str = "train") -> OpenDataset:
        """Map the file and verify all its values: finite, and in the promised range; see `Dataset.open`."""
        require_split(split)
        path, array = find(self.path, "path"), self._samples()
        ends = self._ends(array)
        checksum = _verify(path, array, ends, assumed=self.low is None)
        labels = None if self.labels is None else _labels(find(self.labels, "labels"), len(array))
        held_out = torch.arange(len(array)) % 10 == 9
        rows = torch.nonzero(held_out if split == "test" else ~held_out).squeeze(1)
        if not len(rows):
            problem = f"path: {path} holds {count_of(len(array), 'sample')}; every tenth is held out for the test split"
            raise DataError(f"{problem}, so at least 10 are needed.")
        low, high = ends or (-1.0, 1.0)
        return _ArraySource(
            f"{path.name} {split}",
            array.shape[1:],
            checksum,
            labels=None if labels is None else labels[rows],
            array=array,
            rows=rows,
            centre=(low + high) / 2,
            half=(high - low) / 2,
        )

    def _ends(self, array: np.ndarray) -> tuple[float, float] | None:
        """The values that become -1 and 1, or None if values are not scaled."""
        if array.dtype.kind not in "uif":
            raise DataError(f"path: {self.path} holds values of type {array.dtype}; save it as uint8 or float32.")
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if array.dtype == np.uint8:
            return 0.0, 255.0
        if array.dtype.kind in "ui":
            raise ParameterError("low", f"{self.path} holds {array.dtype} values; set low and high, or save as uint8.")
        return None


@dataclass(repr=False, eq=False, kw_only=True)
class _ArraySource(OpenDataset):
    """Rows of a memory-mapped array, x -> (x - centre) / half on the fly."""

    array: np.ndarray
    rows: Tensor
    centre: float
    half: float

    def __len__(self) -> int:
        return len(self.rows)

    def positions(self) -> tuple[Tensor, int]:
        return self.rows, len(self.array)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        taken = self.array[self.rows[indices.cpu()].numpy()]
        if taken.dtype != np.uint8:  # as float32 they are no more bytes than they were stored in, or half as many
            taken = (taken.astype(np.float64) - self.centre) / self.half
            return torch.from_numpy(taken.astype(np.float32)).to(device, non_blocking=True)
        values = torch.from_numpy(np.ascontiguousarray(taken)).to(device, non_blocking=True)
        return values.to(precise(values.device)).sub_(self.centre).div_(self.half).float()


def _layout(shape: tuple[int, ...]) -> str | None:
    """The layout of an array of this shape; None if it is ambiguous."""
    if len(shape) == 3:
        return "NHW" if shape[1] == shape[2] >= 8 else None
    if len(shape) == 4:
        return None if shape[3] <= 4 < shape[1] else "NCHW"
    return "ND" if len(shape) == 2 else None


def _verify(path: Path, array: np.ndarray, ends: tuple[float, float] | None, assumed: bool) -> str:
    """Check every value against its range, promised or assumed; returns the checksum of the values."""
    smallest, largest = math.inf, -math.inf

    def pieces() -> Iterator[memoryview]:
        nonlocal smallest, largest
        step = max(1, 2**24 // max(1, array[0].nbytes))  # about 16 MB
        for start in range(0, len(array), step):
            rows = np.ascontiguousarray(array[start : start + step])
            if not np.isfinite(rows).all():
                row = start + int(np.argmin(np.isfinite(rows).reshape(len(rows), -1).all(axis=1)))
                raise DataError(f"path: {path} contains NaN or infinity, first in sample {row}. Remove such samples.")
            smallest, largest = min(smallest, float(rows.min())), max(largest, float(rows.max()))
            yield rows.data

    checksum = digest_of(pieces())
    values = f"values from {smallest:g} to {largest:g}"
    if ends is not None:
        low, high = ends
        slack = ROUNDING * (high - low)
        if smallest < low - slack or largest > high + slack:
            problem = f"{path} holds {values}, beyond low = {low:g} and high = {high:g}"
            raise DataError(f"path: {problem}. Set low and high to include them.")
    elif array.ndim >= PIXELS and max(-smallest, largest) > 1 + ROUNDING:
        range_ = (0, 255) if smallest >= 0 and largest <= 255 else (smallest, largest)
        problem = f"{path} holds images with {values}; they must be in [-1, 1]"
        remedy = f"Set the values that become -1 and 1, for example low: {range_[0]:g}, high: {range_[1]:g}"
        raise DataError(f"path: {problem}. {remedy}.")
    if assumed and array.ndim >= PIXELS and smallest >= 0 and 0 < largest <= 1:
        meaning = "black or nearly black" if array.dtype == np.uint8 else "mid-grey to white"
        remedy = "If 0 is black and 1 white, set low: 0, high: 1"
        warnings.warn(f"{path} holds {values}, which are interpreted as {meaning}. {remedy}.", stacklevel=3)
    return checksum


def _labels(path: Path, count: int) -> Tensor:
    """Read (count,) labels as int64."""
    labels = map_array(path, "labels")
    # As int64, in which numbers from 2^63 on are negative.
    if labels.shape != (count,) or labels.dtype.kind not in "ui" or labels.astype(np.int64).min() < 0:
        problem = f"labels: {path} holds {labels.dtype} values of shape {labels.shape}"
        raise DataError(f"{problem}; {count} integers >= 0 of shape ({count},) are needed, one for each sample.")
    return torch.from_numpy(labels.astype(np.int64))
