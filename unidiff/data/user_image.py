"""Images and masks of the user, read for a model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unidiff.data.image import decode, open_image
from unidiff.errors import DataError
from unidiff.reading import map_array

__all__ = ["read_image", "read_map", "read_mask"]


def read_image(path: Path, shape: Sequence[int], small: Sequence[int] | None = None) -> Tensor:
    """A sample as the model takes it, (C, *sizes) in [-1, 1], float32: of an image its central square, resized.

    Args:
        path: The file, an image or an array; an array if the samples are not images.
        shape: The shape of the model's samples.
        small: Another shape that is accepted, of an image that is not resized; the least that is resized is `shape`.

    Raises:
        DataError: If the file is not an image, too small, or an array of another shape or range.
    """
    _require_file(path)
    small = shape if small is None else small
    if path.suffix != ".npy":
        width, height = _size(path, shape)
        if (height, width) == tuple(small[1:]):
            shape = small
        elif tuple(small) != tuple(shape) and (height < shape[1] or width < shape[2]):
            sizes = f"{small[2]} x {small[1]}, or one of at least {shape[2]} x {shape[1]}"
            raise DataError(f"{path} is {width} x {height} pixels; use an image of {sizes}, which is downsampled.")
        if (height, width) != tuple(shape[1:]):
            part, size = "its central square" if height != width else "it", f"{shape[2]} x {shape[1]}"
            notice = f"{path} is {width} x {height} pixels; {part} is resized to {size}, as the model's images."
            warnings.warn(notice, stacklevel=2)
        return decode(path, _side(shape), shape[0]).float() / 127.5 - 1
    x = _floats(path, "[-1, 1] (bytes: x / 127.5 - 1)", shape, small).float()
    if not bool(x.isfinite().all()):
        raise DataError(f"{path} must be finite numbers, got NaN or infinity.")
    if not bool((x.abs() <= 1).all()):
        low, high = float(x.min()), float(x.max())
        raise DataError(f"{path} must be in [-1, 1] (bytes: x / 127.5 - 1), got values from {low:g} to {high:g}.")
    return x


def read_map(path: Path, image: Path, shape: Sequence[int]) -> Tensor:
    """A grey image or array of the same size as `image`, from 0 (black) to 1 (white), (*sizes), float64.

    Raises:
        DataError: If the file is not an image, or differs in size.
    """
    _require_file(path)
    if path.suffix == ".npy":
        x = _floats(path, "[0, 1]", shape[1:], others="biu")
        if not bool(((x >= 0) & (x <= 1)).all()):
            low, high = float(x.min()), float(x.max())
            raise DataError(f"{path} must have values in [0, 1], got values from {low:g} to {high:g}.")
        return x
    own, other = _size(path, shape), _size(image, shape)
    if own != other:
        problem = f"{path} is {own[0]} x {own[1]} pixels, {image} is {other[0]} x {other[1]}"
        raise DataError(f"{problem}. Make them the same size.")
    return decode(path, _side(shape), 1)[0].double() / 255


def read_mask(path: Path, image: Path, shape: Sequence[int]) -> Tensor:
    """Where a mask of the same size as `image` is white, even in part after resizing, (*sizes), bool.

    Raises:
        DataError: If the file is not an image, differs in size, or is not white anywhere.
    """
    free = read_map(path, image, shape) > 0.05  # an antialiased border counts as white
    if not bool(free.any()):
        raise DataError(f"{path} is black everywhere, so no pixel is sampled. White is sampled, black is kept.")
    return free


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file.")


def _floats(path: Path, interval: str, *shapes: Sequence[int], others: str = "") -> Tensor:
    """The numbers of a .npy file of one of these shapes, float64: floats, or those of other kinds of dtype too."""
    values = map_array(path, "array")
    if values.dtype.kind not in f"f{others}":
        raise DataError(f"{path} must contain floats in {interval}, got {values.dtype}.")
    if values.shape not in [tuple(shape) for shape in shapes]:
        raise DataError(f"{path} must have shape {tuple(shapes[0])}, as the model's samples, got {values.shape}.")
    return torch.from_numpy(values.astype(np.float64))


def _size(path: Path, shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of an image; of an array, which has the model's shape, the model's."""
    if len(shape) != 3:
        raise DataError(f"{path}: the model's samples, {tuple(shape)}, are not images. Pass a .npy array.")
    if path.suffix == ".npy":
        return shape[2], shape[1]
    with open_image(path) as opened:
        size: tuple[int, int] = opened.size
    return size


def _side(shape: Sequence[int]) -> int:
    if shape[1] != shape[2]:
        size = f"{shape[1]} x {shape[2]} pixels"
        raise DataError(f"The model's images, {size}, are not square. Pass the image as a .npy array.")
    return shape[1]
