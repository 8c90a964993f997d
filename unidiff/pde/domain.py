"""Domains without flux through their boundary, and their eigenmodes: -Laplace phi_k = lambda_k phi_k."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.basis import DCT
from unidiff.errors import ParameterError, require, require_whole
from unidiff.renamed import class_of_string, renamed, renamed_attribute

__all__ = [
    *("Box", "Discretization", "Domain", "FiniteDifferences", "GradientModes", "Interval", "Rectangle", "Spectral"),
    "cell_centres",
]

_MOST_CELLS = 2**26  # 512 MB for one field: a mistyped size raises an error instead of exhausting the memory


class Domain(PlainArguments, ABC):
    """A domain whose fields are written in orthonormal eigenmodes of minus the Laplacian, no flux at the boundary.

    A field is its values at `points`, (..., *grid), or its modes a_k = <u, phi_k>, (..., *modes). The inner product is
    the integral over the domain, so sum_k lambda_k a_k^2 is the gradient energy, the integral of |grad u|^2.
    """

    @property
    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """lambda_k >= 0, (*modes), float64; exactly 0 for the constant mode."""

    @property
    @abstractmethod
    def points(self) -> tuple[Tensor, ...]:
        """Coordinates of the grid's points: one (*grid) for each dimension, float64."""

    @abstractmethod
    def to_modes(self, values: Tensor) -> Tensor:
        """Modes, (..., *modes), of values on the grid, (..., *grid)."""

    @abstractmethod
    def to_values(self, modes: Tensor) -> Tensor:
        """Values on the grid, (..., *grid), of modes, (..., *modes)."""

    def field(self, function: Callable[..., Any]) -> Tensor:
        """Values on the grid, (*grid), of f(x), f(x, y) or f(x, y, z); one that returns a number is a constant."""
        values = torch.as_tensor(function(*self.points))
        return values.expand(self.points[0].shape) if values.ndim == 0 else values

    def image(self, values: Tensor) -> Tensor:
        """Values on the bounding box, (..., one axis per dimension), NaN outside the domain."""
        return values

    def laplacian(self) -> Any:
        """The Laplacian on the flattened values as a sparse symmetric matrix, scipy.sparse.csr_array.

        Raises:
            ParameterError: If it is not sparse.
        """
        raise ParameterError("domain", f"the Laplacian of {self!r} is not sparse; use finite differences.")

    def gradient_energy(self, modes: Tensor) -> Tensor:
        """The integral of |grad u|^2, (...), of modes, (..., *modes): sum_k lambda_k a_k^2."""
        eigenvalues = self.eigenvalues.to(modes)
        return (eigenvalues * modes**2).flatten(-eigenvalues.ndim).sum(-1)

    def order(self) -> Tensor:
        """Indices into the flattened modes by growing eigenvalue, equal ones in the order of the modes: (modes,)."""
        return self.eigenvalues.flatten().argsort(stable=True)

    def eigenmode(self, k: int) -> Tensor:
        """The modes, (*modes), of phi_k itself, k counted from 0 in the order of the eigenvalues."""
        count = self.eigenvalues.numel()
        require_whole("k", k, 0, count - 1)
        modes = torch.zeros(count, dtype=torch.float64)
        modes[self.order()[k]] = 1
        return modes.reshape(self.eigenvalues.shape)


def cell_centres(cells: Sequence[int], sides: Sequence[float]) -> tuple[Tensor, ...]:
    """Coordinates of the centres of equal cells of a box at the origin: one (*cells) for each axis."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * (side / n) for n, side in zip(cells, sides, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


@dataclass(frozen=True)
class Discretization(PlainArguments, ABC):
    """The Laplacian whose eigenvalues the cosine modes of a box have."""

    @abstractmethod
    def wave_numbers(self, frequencies: Tensor, width: float) -> Tensor:
        """Along one axis, square roots of the eigenvalues of the modes of frequencies pi k / L on cells of a width."""

    def laplacian(self, cells: Sequence[int], sides: Sequence[float]) -> Any:
        """The Laplacian as a sparse matrix; see `Domain.laplacian`."""
        raise ParameterError("discretization", f"must be FiniteDifferences(), whose Laplacian is sparse, got {self!r}")


@dataclass(frozen=True)
class Spectral(Discretization):
    """The Laplacian of the continuum: eigenvalues sum_a (pi k_a / L_a)^2."""

    def wave_numbers(self, frequencies: Tensor, width: float) -> Tensor:
        return frequencies


@dataclass(frozen=True)
class FiniteDifferences(Discretization):
    """The 3-, 5- or 7-point Laplacian on n cells of width h an axis, sum_a (2 / h)^2 sin^2(pi k_a / 2 n)."""

    def wave_numbers(self, frequencies: Tensor, width: float) -> Tensor:
        return 2 / width * torch.sin(frequencies * width / 2)

    def laplacian(self, cells: Sequence[int], sides: Sequence[float]) -> Any:
        from scipy.sparse import csr_array, diags_array, kronsum

        total = csr_array((1, 1))
        for n, side in zip(cells, sides, strict=True):
            ones = np.full(n - 1, n / side)
            gradient = diags_array([-ones, ones], offsets=[0, 1], shape=(n - 1, n))  # inside: no flux at the border
            total = kronsum(-gradient.T @ gradient, total)  # 1 (x) A + B (x) 1, so the last axis runs fastest
        return csr_array(total)


@dataclass(frozen=True)
class _Grid(Domain):
    """A box of equal cells, in which the cosine transform gives every eigenmode.

    Args:
        cells: Number of cells along each axis, at least 2.
        sides: Lengths L of the sides.
        discretization: The Laplacian whose eigenvalues the modes have.
    """

    cells: tuple[int, ...]
    sides: tuple[float, ...]
    discretization: Discretization = field(default_factory=Spectral)

    dimension: ClassVar[int]

    def __post_init__(self) -> None:
        for name in ("cells", "sides"):
            value = getattr(self, name)
            value = value if isinstance(value, tuple) else (value,)
            object.__setattr__(self, name, value)
            require(len(value) == self.dimension, name, value, f"{self.dimension} values, one for each axis")
        for cells, side in zip(self.cells, self.sides, strict=True):
            require_whole("cells", cells, 2)
            require(0 < side < math.inf, "sides", side, "a number > 0")
        require(math.prod(self.cells) <= _MOST_CELLS, "cells", self.cells, f"at most {_MOST_CELLS:,} cells in all")
        class_of_string(self, "discretization", Discretization, stacklevel=6)

    @property
    def _basis(self) -> DCT:
        return DCT(self.cells)

    @property
    def _cell_scale(self) -> float:
        """Square root of a cell's volume, which makes the transform orthonormal for the integral."""
        return math.sqrt(math.prod(self.sides) / math.prod(self.cells))

    @cached_property
    def eigenvalues(self) -> Tensor:
        """sum_a w_a^2, (*cells), of the wave numbers w_a along the axes; see `Discretization`."""
        axes = zip(self._basis.frequencies(self.sides), self.sides, self.cells, strict=True)
        waves = [self.discretization.wave_numbers(frequencies, side / n) for frequencies, side, n in axes]
        return torch.stack(waves).square().sum(0)

    @cached_property
    def points(self) -> tuple[Tensor, ...]:
        return cell_centres(self.cells, self.sides)

    def laplacian(self) -> Any:
        """The 3-, 5- or 7-point Laplacian; see `Domain.laplacian`. For `FiniteDifferences` only."""
        return self.discretization.laplacian(self.cells, self.sides)

    def to_modes(self, values: Tensor) -> Tensor:
        return self._cell_scale * self._basis.forward(values)

    def to_values(self, modes: Tensor) -> Tensor:
        return self._basis.inverse(modes / self._cell_scale)


@renamed(kind="discretization")
@dataclass(frozen=True)
class Interval(_Grid):
    """The interval [0, L]."""

    cells: int | tuple[int, ...] = 128  # type: ignore[assignment]
    sides: float | tuple[float, ...] = 1.0  # type: ignore[assignment]
    dimension: ClassVar[int] = 1


@renamed(kind="discretization")
@dataclass(frozen=True)
class Rectangle(_Grid):
    """The rectangle [0, L_1] x [0, L_2]; the first axis is that of the rows."""

    cells: tuple[int, int] = (64, 64)
    sides: tuple[float, float] = (1.0, 1.0)
    dimension: ClassVar[int] = 2


@renamed(kind="discretization")
@dataclass(frozen=True)
class Box(_Grid):
    """The box [0, L_1] x [0, L_2] x [0, L_3]."""

    cells: tuple[int, int, int] = (32, 32, 32)
    sides: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dimension: ClassVar[int] = 3


@dataclass(frozen=True)
class GradientModes(PlainArguments):
    """The K modes of a domain with eigenvalue above 0, all but the constant; they carry R = sum_k lambda_k u_k^2.

    In y_k = sqrt(lambda_k / R) u_k a field of gradient energy R is a point of the unit sphere: a direction.

    Args:
        domain: The domain.
    """

    domain: Domain

    @cached_property
    def _order(self) -> Tensor:
        """Indices of the K modes in the flattened modes, by growing eigenvalue."""
        order = self.domain.order()
        return order[self.domain.eigenvalues.flatten()[order] > 0]

    @cached_property
    def eigenvalues(self) -> Tensor:
        """lambda_k > 0, ascending: (K,), float64."""
        return self.domain.eigenvalues.flatten()[self._order]

    place = renamed_attribute("place", "embed")

    def select(self, modes: Tensor) -> Tensor:
        """The modes that carry gradient, (..., K), out of all, (..., *modes)."""
        flat = modes.flatten(modes.ndim - self.domain.eigenvalues.ndim)
        return flat[..., self._order.to(modes.device)]

    def embed(self, selected: Tensor) -> Tensor:
        """All modes, (..., *modes), of those that carry gradient, (..., K); the others are 0."""
        shape = self.domain.eigenvalues.shape
        flat = selected.new_zeros(*selected.shape[:-1], shape.numel())
        return flat.index_copy(-1, self._order.to(selected.device), selected).unflatten(-1, shape)

    def directions(self, modes: Tensor) -> Tensor:
        """y_k = sqrt(lambda_k / R) u_k, of norm 1, (..., K), of modes, (..., *modes).

        Raises:
            ParameterError: If a field is constant: it has no direction.
        """
        u = self.select(modes)
        y = self.eigenvalues.sqrt().to(u) * u
        largest = y.abs().amax(-1, keepdim=True)
        require(bool((largest > 0).all()), "modes", "a constant field", "a field that is not constant")
        y = y / largest  # so that no square underflows
        return y / y.norm(dim=-1, keepdim=True)

    def modes(self, y: Tensor, energy: Tensor | float) -> Tensor:
        """Modes u_k = sqrt(R / lambda_k) y_k, (..., *modes), of y, (..., K), and gradient energies R, (...)."""
        scale = torch.as_tensor(energy, dtype=y.dtype, device=y.device).sqrt()[..., None]
        return self.embed(scale * y / self.eigenvalues.sqrt().to(y))
