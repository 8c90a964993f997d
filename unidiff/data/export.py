"""Samples of a data set as files that `unidiff edit` and `inpaint` read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unidiff.files import whole_file

__all__ = ["centre_mask", "is_image", "write_sample"]


def is_image(shape: Sequence[int]) -> bool:
    """Whether samples, (C, *sizes), are images that a PNG file can hold."""
    return len(shape) == 3 and shape[0] in (1, 3)


def write_sample(x: Tensor, path: Path) -> None:
    """Write a sample, (C, *sizes) in [-1, 1], of its own size: to a file .npy in float32, else as PNG in bytes."""
    from PIL import Image

    with whole_file(path) as partial, partial.open("wb") as file:
        if path.suffix == ".npy":
            np.save(file, x.numpy().astype(np.float32))
        else:
            pixels = ((x.double() + 1) * 127.5).round().clamp(0, 255).byte().movedim(0, -1).numpy()
            Image.fromarray(pixels[..., 0] if x.shape[0] == 1 else pixels).save(file, "PNG")


def centre_mask(shape: Sequence[int]) -> Tensor:
    """1, of which a file is white, in the middle half of each axis, and -1 elsewhere: (1, *sizes)."""
    mask = torch.full((1, *shape[1:]), -1.0)
    middle = tuple(slice(n // 4, n - n // 4) for n in shape[1:])
    mask[0][middle] = 1
    return mask
