"""Domains of any shape in the plane: square cells, a sparse Laplacian and its lowest eigenmodes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import ParameterError, require, require_whole
from unidiff.pde.domain import Domain, cell_centres

__all__ = ["Mask", "Polygon"]

_DENSE = 400  # up to this many cells a dense eigensolver is used


class _Cells(Domain):
    """The cells of a rectangle that lie inside a shape, with no flux through the faces to cells outside.

    A field is its values on the cells inside, (..., cells_inside), in row-major order; `image` restores the rectangle.
    There are fewer modes than cells, so `to_modes` is an orthogonal projection, which mollifies.
    """

    modes: int

    @property
    @abstractmethod
    def _inside(self) -> np.ndarray[Any, Any]:
        """Which cells are inside, (rows, columns), bool."""

    @property
    @abstractmethod
    def _frame(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The rectangle's corner of least coordinates, and its sides."""

    def _check(self, parameter: str) -> None:
        """Reject fewer than two cells, several connected components, and more modes than cells."""
        count = int(self._inside.sum())
        if count < 2:
            problem = f"{count or 'no'} cell{'s' if count != 1 else ''} inside. Use a larger shape or smaller cells."
            raise ParameterError(parameter, problem)
        from scipy.sparse.csgraph import connected_components

        components, labels = connected_components(self.laplacian(), directed=False)
        if components > 1:
            sizes = ", ".join(map(str, sorted(np.bincount(labels), reverse=True)[:5])) + ", ..." * (components > 5)
            problem = f"the domain has {components} connected components (of {sizes} cells; cells that share only a"
            raise ParameterError(parameter, f"{problem} corner are not connected). Use one component or smaller cells.")
        require_whole("modes", self.modes, 2, count)

    @cached_property
    def points(self) -> tuple[Tensor, ...]:
        """Centres of the cells inside: (cells_inside) for each axis."""
        origin, sides = self._frame
        inside = torch.from_numpy(self._inside)
        return tuple(start + axis[inside] for start, axis in zip(origin, cell_centres(inside.shape, sides)))

    @property
    def eigenvalues(self) -> Tensor:
        """The lowest eigenvalues of minus the 5-point Laplacian, increasing, (modes), float64; the first is 0."""
        return self._eigenpairs[0]

    def to_modes(self, values: Tensor) -> Tensor:
        """Modes, (..., modes), of values, (..., cells_inside): a projection."""
        self._check_values(values)
        return values @ self._eigenpairs[1].to(values) * self._cell_scale

    def to_values(self, modes: Tensor) -> Tensor:
        """Values, (..., cells_inside), of modes, (..., modes)."""
        return modes @ self._eigenpairs[1].to(modes).T / self._cell_scale

    def image(self, values: Tensor) -> Tensor:
        """Values on the whole rectangle, (..., rows, columns), NaN outside."""
        self._check_values(values)
        inside = torch.from_numpy(self._inside).to(values.device)
        whole = values.new_full((*values.shape[:-1], *inside.shape), math.nan)
        whole[..., inside] = values
        return whole

    def _check_values(self, values: Tensor) -> None:
        count = int(self._inside.sum())
        allowed = f"(..., {count}), one value per cell inside, in row-major order"
        require(values.shape[-1:] == (count,), "values", tuple(values.shape), allowed)

    def laplacian(self) -> Any:
        from scipy.sparse import coo_array, csr_array, diags_array

        inside, count = self._inside, self._inside.sum()
        number = np.full(inside.shape, -1)
        number[inside] = np.arange(count)
        total = csr_array((count, count))
        for axis, side in enumerate(self._frame[1]):
            first, second = np.delete(number, -1, axis), np.delete(number, 0, axis)
            both = (first >= 0) & (second >= 0)  # a face between two cells inside; there is no flux through the others
            weight = np.full(both.sum(), (inside.shape[axis] / side) ** 2)
            total = total + coo_array((weight, (first[both], second[both])), total.shape).tocsr()
        total = total + total.T
        return csr_array(total - diags_array(total.sum(1)))

    @property
    def _cell_scale(self) -> float:
        return math.sqrt(math.prod(self._frame[1]) / self._inside.size)

    @cached_property
    def _eigenpairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, (modes), and orthonormal eigenvectors, (cells_inside, modes)."""
        from scipy.sparse.linalg import eigsh

        matrix = -self.laplacian()
        count = matrix.shape[0]
        if count <= _DENSE or self.modes > count // 2:
            values, vectors = np.linalg.eigh(matrix.toarray())
        else:
            # Shifted and inverted about a number just below 0, where the matrix is still positive definite.
            sigma = -0.01 * (math.pi / max(self._frame[1])) ** 2
            initial = np.random.default_rng(0).standard_normal(count)
            values, vectors = eigsh(matrix.tocsc(), self.modes, sigma=sigma, v0=initial)
        lowest = np.argsort(values)[: self.modes]
        values, vectors = values[lowest], vectors[:, lowest]
        # The first mode is the constant. The others are made orthogonal to it, and their largest entry positive.
        vectors[:, 1:] -= vectors[:, 1:].mean(0)
        vectors[:, 1:] /= np.linalg.norm(vectors[:, 1:], axis=0)
        largest = vectors[np.abs(vectors).argmax(0), np.arange(self.modes)]
        vectors *= np.where(largest < 0, -1.0, 1.0)
        values[0], vectors[:, 0] = 0.0, 1 / math.sqrt(count)
        return torch.from_numpy(values), torch.from_numpy(vectors)


@dataclass(frozen=True)
class Mask(_Cells):
    """The marked cells of a rectangle [0, L_1] x [0, L_2]: any shape, with a staircase boundary.

    Eigenvalues of a shape with slanted or curved sides have a relative error of O(h), h the size of a cell.

    Args:
        inside: Which cells are inside, (rows, columns); a tensor, an array, or rows of true and false. Connected.
        sides: L_1 and L_2.
        modes: Number of eigenmodes, the lowest ones: from 2 to the number of cells inside.
    """

    inside: tuple[tuple[bool, ...], ...] = field(repr=False)
    sides: tuple[float, float] = (1.0, 1.0)
    modes: int = 64

    def __post_init__(self) -> None:
        try:
            marked = np.asarray(self.inside)
        except ValueError as error:
            raise ParameterError("inside", "its rows are of different lengths.") from error
        require(marked.ndim == 2, "inside", marked.shape, "an array (rows, columns)")
        object.__setattr__(self, "inside", tuple(map(tuple, marked.astype(bool).tolist())))
        positive = len(self.sides) == 2 and all(0 < side < math.inf for side in self.sides)
        require(positive, "sides", self.sides, "two numbers > 0")
        self._check("inside")

    @classmethod
    def where(
        cls,
        function: Callable[[Tensor, Tensor], Tensor],
        cells: tuple[int, int],
        sides: tuple[float, float] = (1.0, 1.0),
        modes: int = 64,
    ) -> Mask:
        """Mark the cells whose centre (x, y) satisfies a condition.

        Args:
            function: From coordinates, (rows, columns) each, to true or false.
            cells: Numbers of cells along both axes.
            sides: L_1 and L_2.
            modes: As for the class.
        """
        for n in cells:
            require_whole("cells", n)
        marked: Any = function(*cell_centres(cells, sides)).numpy()
        return cls(marked, sides, modes)

    @cached_property
    def _inside(self) -> np.ndarray[Any, Any]:
        return np.array(self.inside, dtype=bool)

    @property
    def _frame(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.0, 0.0), self.sides


@dataclass(frozen=True)
class Polygon(_Cells):
    """The interior of a polygon on a grid: the cells whose centre is inside (by the even-odd rule).

    Sides that fall on cell borders are exact; others become staircases, see `Mask`.

    Args:
        vertices: Corners (x, y) in order, at least 3; the last is joined to the first.
        cells: Number of cells along the longer side of the bounding rectangle, at least 2.
        modes: Number of eigenmodes, the lowest ones: from 2 to the number of cells inside.
    """

    vertices: tuple[tuple[float, float], ...]
    cells: int = 64
    modes: int = 64

    def __post_init__(self) -> None:
        require(len(self.vertices) >= 3, "vertices", self.vertices, "at least 3 corners")
        for vertex in self.vertices:
            finite = len(vertex) == 2 and all(map(math.isfinite, vertex))
            require(finite, "vertices", vertex, "two finite numbers, x and y")
        require_whole("cells", self.cells, 2, 10_000)
        # Twice the areas of the triangles with the longest line from the first corner. The enclosed area would not do:
        # for a figure of eight it is 0.
        arms = [(x - self.vertices[0][0], y - self.vertices[0][1]) for x, y in self.vertices]
        a, b = max(arms, key=lambda arm: math.hypot(*arm))
        flat = max(abs(a * y - b * x) for x, y in arms) <= 1e-12 * (a * a + b * b)
        require(not flat, "vertices", self.vertices, "corners that do not lie on one line")
        self._check("vertices")

    @cached_property
    def _inside(self) -> np.ndarray[Any, Any]:
        origin, sides = self._frame
        shape = [max(1, round(side / (max(sides) / self.cells))) for side in sides]
        x, y = (start + axis.numpy() for start, axis in zip(origin, cell_centres(shape, sides)))
        inside = np.zeros(shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(self.vertices, (*self.vertices[1:], self.vertices[0])):
            if y0 != y1:  # count the crossings of the outline with a ray from the point to the right
                crosses = (y0 <= y) != (y1 <= y)
                inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        return inside

    @property
    def _frame(self) -> tuple[tuple[float, float], tuple[float, float]]:
        (left, bottom), (right, top) = (tuple(map(extreme, zip(*self.vertices))) for extreme in (min, max))
        return (left, bottom), (right - left, top - bottom)
