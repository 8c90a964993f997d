"""Orthonormal bases in which a process is diagonal. Solvers work in mode coordinates, networks in pixels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import require, require_whole

__all__ = ["DCT", "Basis", "Pixel", "set_shape"]

_DENSE = 128  # up to this length a product with the cosine matrix is as fast as an FFT, and more exact in float32


@dataclass(frozen=True)
class Basis(PlainArguments, ABC):
    """An orthonormal change of coordinates, u = V^T x: white noise, norms and traces are the same in both.

    Attributes:
        shape: The last axes of a sample, over which a process's coefficients may differ; () for scalar coefficients.
    """

    shape: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Mode coordinates u = V^T x, (B, *shape), of pixels x, (B, *shape)."""

    @abstractmethod
    def inverse(self, u: Tensor) -> Tensor:
        """Pixels x = V u, (B, *shape), of mode coordinates u, (B, *shape)."""


@dataclass(frozen=True)
class Pixel(Basis):
    """The identity: mode coordinates are the pixels themselves (DDPM, NCSN and every SDE with scalar coefficients)."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, u: Tensor) -> Tensor:
        return u


def set_shape(owner: Any, least: int = 1, most: int | None = None) -> None:
    """Validate the `shape` of a frozen object, and store it as a tuple (recipes have lists)."""
    object.__setattr__(owner, "shape", tuple(owner.shape))
    require(len(owner.shape) > 0, "shape", owner.shape, "at least one axis, such as (28, 28)")
    for n in owner.shape:
        require_whole("shape", n, least, most)


@dataclass(frozen=True)
class DCT(Basis):
    """Cosines over the last axes: the eigenvectors of the Laplacian on a grid of cells with no flux at the border.

    The orthonormal type-II transform (Strang 1999, "The discrete cosine transform"): mode k of an axis with n cells is
    cos(pi k (i + 1/2) / n) at cell i, scaled to norm 1.

    Args:
        shape: Number of cells along each transformed axis, such as (28, 28); the last axes of the tensor.
    """

    shape: tuple[int, ...]  # type: ignore[misc]

    def __post_init__(self) -> None:
        set_shape(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._along_each_axis(_cosine_transform, x)

    def inverse(self, u: Tensor) -> Tensor:
        return self._along_each_axis(_inverse_cosine_transform, u)

    def frequencies(self, sides: Sequence[float] | None = None) -> tuple[Tensor, ...]:
        """The wave number pi k / side along each axis, broadcast against each other: one (*shape) each, float64.

        Args:
            sides: Lengths of the axes; by default the numbers of cells, so that a cell has length 1.
        """
        lengths = zip(self.shape, self.shape if sides is None else sides, strict=True)
        axes = [torch.arange(n, dtype=torch.float64) * (math.pi / side) for n, side in lengths]
        return torch.meshgrid(*axes, indexing="ij")

    def eigenvalues(self) -> Tensor:
        """Eigenvalues pi^2 sum_a (k_a / n_a)^2 of minus the Laplacian, for cells of side 1: (*shape), float64."""
        return sum((w**2 for w in self.frequencies()), torch.zeros(()))

    def _along_each_axis(self, transform: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if x.shape[x.ndim - len(self.shape) :] != self.shape:
            raise ValueError(f"the last axes must be {self.shape}, got a tensor of shape {tuple(x.shape)}")
        for axis in range(-len(self.shape), 0):
            x = transform(x.movedim(axis, -1)).movedim(-1, axis)
        return x


def _norms(n: int) -> Tensor:
    """The factors that normalize cos(pi k (i + 1/2) / n), for each k: (n,)."""
    norms = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64)
    norms[0] = math.sqrt(1 / n)
    return norms


@lru_cache(maxsize=64)
def _cosine_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows are modes: (n, n)."""
    with torch.inference_mode(False):
        turns = torch.outer(torch.arange(n), 2 * torch.arange(n) + 1) % (4 * n)  # small angles: cos keeps its digits
        matrix = torch.cos(math.pi / (2 * n) * turns.to(torch.float64)) * _norms(n)[:, None]
        return matrix.to(device, dtype)


@lru_cache(maxsize=64)
def _twiddle(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """exp(-i pi k / 2n) for k up to n / 2, complex, and the norms, (n,)."""
    with torch.inference_mode(False):
        angle = -math.pi / (2 * n) * torch.arange(n // 2 + 1, dtype=torch.float64)
        turn = torch.polar(torch.ones_like(angle), angle)
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        return turn.to(device, complex_dtype), _norms(n).to(device, dtype)


def _cosine_transform(x: Tensor) -> Tensor:
    n = x.shape[-1]
    if n <= _DENSE or x.dtype not in (torch.float32, torch.float64):
        return x @ _cosine_matrix(n, x.dtype, x.device).T
    # One real FFT of the even cells followed by the odd ones backwards (Makhoul 1980). With its term k turned by
    # -pi k / 2n, mode k is the real part and mode n - k minus the imaginary one.
    reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    turn, norms = _twiddle(n, x.dtype, x.device)
    turned = torch.fft.rfft(reordered) * turn
    return torch.cat([turned.real, -turned.imag[..., 1 : (n + 1) // 2].flip(-1)], -1) * norms


def _inverse_cosine_transform(u: Tensor) -> Tensor:
    n = u.shape[-1]
    if n <= _DENSE or u.dtype not in (torch.float32, torch.float64):
        return u @ _cosine_matrix(n, u.dtype, u.device)
    turn, norms = _twiddle(n, u.dtype, u.device)
    cosines = u / norms
    sines = torch.cat([torch.zeros_like(u[..., :1]), cosines[..., (n + 1) // 2 :].flip(-1)], -1)
    reordered = torch.fft.irfft(torch.complex(cosines[..., : n // 2 + 1], -sines) * turn.conj(), n)
    half = (n + 1) // 2
    even, odd = reordered[..., :half], torch.nn.functional.pad(reordered[..., half:].flip(-1), (0, n % 2))
    return torch.stack([even, odd], -1).flatten(-2)[..., :n]
