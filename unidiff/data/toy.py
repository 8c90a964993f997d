"""Toy densities in the plane, within about [-1, 1] x [-1, 1], known in closed form."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unidiff.data.base import Dataset, TensorSource, require_split
from unidiff.errors import require, require_whole
from unidiff.memory import require_memory

__all__ = ["Checkerboard", "Ring", "Spiral", "Synthetic", "TwoMoons"]

_LARGEST = 1e15  # of lengths: float32, in which a loss squares samples, ends at 3e38


class Synthetic(Dataset):
    """Samples drawn at random. The train and the test split are independent streams of the same seed.

    The checksum is the SHA-256 of the float32 values.

    Args:
        count: Samples in each split.
        seed: Seed of the random stream, at least 0.
    """

    class_names: ClassVar[tuple[str, ...] | None] = None

    # Not a dataclass itself: its subclasses declare these two last, after their own parameters.
    count: int
    seed: int

    def __post_init__(self) -> None:
        require_whole("count", self.count, 1)
        require_whole("seed", self.seed, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def open(self, split: str = "train") -> TensorSource:
        require_split(split)
        needed = 16 * self.count * math.prod(self.shape)  # float64, and what they are computed from
        require_memory("count", needed, f"{self.count:,} samples", "Lower the count.")
        # The split has a fixed position, whatever the length of the seed.
        key = [self.seed % 2**32, 0 if split == "train" else 1, self.seed >> 32]
        points, labels = self._draw(np.random.default_rng(key))
        values = torch.from_numpy(points.astype(np.float32))
        classes = None if labels is None else torch.from_numpy(labels)
        name = f"{type(self).__name__} {split}"
        return TensorSource(values, name, labels=classes, class_names=self.class_names)

    @abstractmethod
    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples, (count, *shape) float64, and labels, (count,) int64 or None."""


@dataclass(frozen=True)
class Ring(Synthetic):
    """Equal Gaussian components, evenly spaced on a circle: a mixture whose score is known at any noise level.

    Its mean is 0 and, for three components or more, its covariance is (radius^2 / 2 + std^2) I. Labels are the
    components.

    Args:
        components: Number of Gaussians, at least 1.
        radius: Radius of the circle of means, more than 0.
        std: Standard deviation of each component in each direction, at least 0.
    """

    components: int = 8
    radius: float = 0.7
    std: float = 0.05
    count: int = 10000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("components", self.components, 1, 1_000_000)
        require(0 < self.radius <= _LARGEST, "radius", self.radius, f"a number > 0, and at most {_LARGEST:g}")
        require(0 <= self.std <= _LARGEST, "std", self.std, f"a number from 0 to {_LARGEST:g}")

    @property
    def classes(self) -> int:
        """The number of components."""
        return self.components

    @property
    def means(self) -> Tensor:
        """Centres of the components, (components, 2) float64; the first lies on the positive x axis."""
        angle = 2 * math.pi * torch.arange(self.components, dtype=torch.float64) / self.components
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)

    @property
    def mixture(self) -> tuple[Tensor, float]:
        """The centres, (components, 2) float64, and the variance std^2 of each component."""
        return self.means, self.std**2

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        labels = random.integers(self.components, size=self.count)
        return self.means.numpy()[labels] + self.std * random.standard_normal((self.count, 2)), labels


@dataclass(frozen=True)
class TwoMoons(Synthetic):
    """Two interlocking half circles of radius 2/3, with Gaussian noise. Labels are the moons; the mean is 0.

    Args:
        noise: Standard deviation of the noise in each direction, at least 0.
    """

    noise: float = 0.05
    count: int = 10000
    seed: int = 0

    classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.noise <= _LARGEST, "noise", self.noise, f"a number from 0 to {_LARGEST:g}")

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        angle = math.pi * random.random(self.count)
        lower = random.integers(2, size=self.count)
        sign = 1 - 2 * lower
        # Upper moon (cos, sin), lower moon (1 - cos, 1/2 - sin); then the centre (1/2, 1/4) is moved to 0 and the
        # width of 3 scaled to 2.
        moons = np.stack([lower + sign * np.cos(angle) - 0.5, lower / 2 + sign * np.sin(angle) - 0.25], axis=1) / 1.5
        return moons + self.noise * random.standard_normal((self.count, 2)), lower


@dataclass(frozen=True)
class Spiral(Synthetic):
    """An Archimedean spiral out to radius 0.95, points uniform in the square of the angle, with Gaussian noise.

    Args:
        turns: Number of turns, more than 0.
        noise: Standard deviation of the noise in each direction, at least 0.
    """

    turns: float = 2.0
    noise: float = 0.02
    count: int = 10000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.turns <= _LARGEST, "turns", self.turns, f"a number > 0, and at most {_LARGEST:g}")
        require(0 <= self.noise <= _LARGEST, "noise", self.noise, f"a number from 0 to {_LARGEST:g}")

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        # The square root makes points about evenly spaced along the curve: its length grows like the angle squared.
        reach = np.sqrt(random.random(self.count))
        angle = 2 * math.pi * self.turns * reach
        curve = 0.95 * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return curve + self.noise * random.standard_normal((self.count, 2)), None


@dataclass(frozen=True)
class Checkerboard(Synthetic):
    """Uniform on the dark squares of a board over [-1, 1]^2; the square at the lower left is dark.

    Args:
        cells: Squares along each side, at least 1. If even, each coordinate by itself is uniform on [-1, 1].
    """

    cells: int = 4
    count: int = 10000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("cells", self.cells, 1)

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        dark = np.argwhere(np.indices((self.cells, self.cells)).sum(axis=0) % 2 == 0)
        corner = dark[random.integers(len(dark), size=self.count)]
        return (corner + random.random((self.count, 2))) * (2 / self.cells) - 1, None
