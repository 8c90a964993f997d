"""The 8x8 digits, sheared, for models that are to be changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unidiff.data.base import TensorSource, scaled
from unidiff.data.digits import Digits
from unidiff.errors import is_whole, require

__all__ = ["ShearedDigits", "sheared", "slant"]


@dataclass(frozen=True)
class ShearedDigits(Digits):
    """scikit-learn's digits with every row moved sideways in proportion to its height; see `Digits`.

    The checksum is the SHA-256 of the sheared images of the split as float32.

    Args:
        shear: Columns that a row is moved against the next one; the slope of the ink changes by about -shear.
        only: The digits to take, 0 to 9; () for all.
    """

    shear: float = 0.4
    only: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.shear, (int, float)) and not isinstance(self.shear, bool)
        require(number and math.isfinite(self.shear) and abs(self.shear) <= 4, "shear", self.shear, "from -4 to 4")
        listed = isinstance(self.only, (tuple, list))
        known = listed and all((digit == 0 or is_whole(digit)) and digit < 10 for digit in self.only)
        require(known, "only", self.only, "a list of digits from 0 to 9, or () for all")

    def open(self, split: str = "train") -> TensorSource:
        """Read the split and shear it; see `Dataset.open`."""
        source = super().open(split)
        labels, names = source.labels, source.class_names
        assert labels is not None
        rows = torch.isin(labels, torch.tensor(self.only)) if self.only else torch.ones_like(labels, dtype=torch.bool)
        x = sheared(scaled(source.values[rows]), self.shear)
        return TensorSource(x, f"ShearedDigits {split}", None, None, labels[rows], names)


def sheared(x: Tensor, shear: float) -> Tensor:
    """Images in [-1, 1], (B, C, H, W), sheared bilinearly: what was at column c + shear (r - middle) of row r is at c.

    What comes from outside is background, -1.
    """
    theta = x.new_tensor([[1.0, shear * x.shape[2] / x.shape[3], 0.0], [0.0, 1.0, 0.0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False).clamp(0, 2) - 1


def slant(x: Tensor) -> float:
    """The slope of the ink of images, (B, 1, H, W): cov(column, row) / var(row), with the ink as weight.

    Both are summed over the images. Pixels below a tenth of the range are background: what noise is left there would
    pull the slope to zero.
    """
    ink = (x.double().clamp(-1, 1) + 1)[:, 0]
    ink = ink * (ink > 0.2)
    row, column = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in x.shape[2:])
    row, mass = row[:, None], ink.sum((1, 2)).clamp(min=1e-9)  # an empty image counts for nothing
    r, c = (ink * row).sum((1, 2)), (ink * column).sum((1, 2))
    covariance = (ink * row * column).sum((1, 2)) - r * c / mass
    variance = (ink * row**2).sum((1, 2)) - r**2 / mass
    return float(covariance.sum() / variance.sum())
