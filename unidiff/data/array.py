"""Samples from a .npy file, which stays on the disk and is mapped into memory."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset, require_split
from unidiff.errors import DataError, ParameterError, require
from unidiff.search_paths import find

__all__ = ["ArrayFile"]

ROUNDING = 1e-6  # how far beyond [-1, 1] an image may go: float32 arithmetic leaves that much


@dataclass(frozen=True)
class ArrayFile(Dataset):
    """An array of samples in a .npy file: images (N, C, H, W) or (N, H, W), or vectors (N, D).

    Opening reads the file once, in pieces, to verify it; the checksum is the SHA-256 of the array's values in C order.
    Every tenth sample (9, 19, 29, ...) is the test split, the others the train split.

    Args:
        path: The .npy file. If relative, it is looked up as given, then under $UNIDIFF_DATA.
        low: The value that becomes -1. With `high`, no value may lie outside [low, high].
        high: The value that becomes 1. Without `low` and `high`, uint8 means 0 to 255, and floating-point values are
            taken as they are: finite, and in [-1, 1] if they are images.
        labels: A .npy file of (N,) integers >= 0, looked up likewise, or None.
    """

    path: str
    low: float | None = None
    high: float | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))  # a Path is welcome; the repr is a recipe: plain text
        if self.labels is not None:
            object.__setattr__(self, "labels", os.fspath(self.labels))
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
        found = _map(find(self.path, "path"), "path").shape
        if not 2 <= len(found) <= 4 or 0 in found:
            raise DataError(
                f"path: {self.path} holds an array of shape {found}; allowed are (N, C, H, W), (N, H, W) and (N, D), "
                f"with no size 0. Reshape it and save it again."
            )
        return (1, *found[1:]) if len(found) == 3 else found[1:]

    def open(self, split: str = "train") -> OpenDataset:
        """Map the file, verify all its values, and give one split.

        Raises:
            DataError: If a file is missing, damaged, holds Python objects, or values that are not finite or not in
                the range promised; if there are too few samples for a test split.
        """
        require_split(split)
        shape = self.shape
        path = find(self.path, "path")
        array = _map(path, "path")
        low, high = self._range(array)
        checksum = _verify(path, array, low, high, image=len(shape) == 3)
        labels = None if self.labels is None else _labels(find(self.labels, "labels"), len(array))
        held_out = torch.arange(len(array)) % 10 == 9
        rows = torch.nonzero(held_out if split == "test" else ~held_out).squeeze(1)
        if not len(rows):
            raise DataError(
                f"path: {path} holds {len(array)} samples; every tenth is held out for the test split, so at least 10 "
                f"are needed."
            )
        scale = (0.0, 1.0) if low is None or high is None else ((low + high) / 2, (high - low) / 2)
        return _ArraySource(array, rows, scale, f"{path.name} {split}", shape, checksum, labels)

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
        shape: tuple[int, ...],
        checksum: str,
        labels: Tensor | None,
    ) -> None:
        super().__init__(name, shape, checksum, None, None if labels is None else labels[rows])
        self._array = array
        self._rows = rows
        self._centre, self._half = scale

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Take samples by index: (B,) integers in, (B, *shape) float32 out."""
        taken = self._array[self._rows[indices.cpu()].numpy()].astype(np.float64)
        scaled = torch.from_numpy((taken - self._centre) / self._half).float()
        return scaled.reshape(len(indices), *self.shape).to(device)


def _map(path: Path, parameter: str) -> np.ndarray:
    """Map a .npy file into memory without reading its values. Python objects in it are refused, not unpickled."""
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


def _verify(path: Path, array: np.ndarray, low: float | None, high: float | None, image: bool) -> str:
    """Hold every value against the range promised; returns the checksum of the values."""
    total = hashlib.sha256()
    smallest, largest = math.inf, -math.inf
    step = max(1, 2**24 // max(1, array[0].nbytes))  # pieces of about 16 MB
    for start in range(0, len(array), step):
        part = np.ascontiguousarray(array[start : start + step])
        total.update(part.data)
        if not np.isfinite(part).all():
            row = start + int(np.argmin(np.isfinite(part).reshape(len(part), -1).all(axis=1)))
            raise DataError(f"path: {path} holds NaN or infinity, first in sample {row}. Remove such samples.")
        smallest, largest = min(smallest, float(part.min())), max(largest, float(part.max()))
    if low is not None and high is not None:
        slack = ROUNDING * (high - low)
        if smallest < low - slack or largest > high + slack:
            raise DataError(
                f"path: {path} holds values from {smallest:g} to {largest:g}, beyond low = {low:g} and high = {high:g}."
                f" Give low and high that hold them."
            )
    elif image and max(-smallest, largest) > 1 + ROUNDING:
        raise DataError(
            f"path: {path} holds images with values from {smallest:g} to {largest:g}; they must be in [-1, 1]. Give "
            f"low and high (the values that become -1 and 1), for example low: {smallest:g}, high: {largest:g}."
        )
    return f"sha256:{total.hexdigest()}"


def _labels(path: Path, count: int) -> Tensor:
    """Read (count,) labels as int64."""
    found = _map(path, "labels")
    if found.shape != (count,) or found.dtype.kind not in "ui" or found.min() < 0:
        raise DataError(
            f"labels: {path} holds {found.dtype} values of shape {found.shape}; one integer of at least 0 is "
            f"needed for each of the {count} samples, shape ({count},)."
        )
    return torch.from_numpy(found.astype(np.int64))
