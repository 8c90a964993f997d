"""Linear measurements y = A x, each with its singular value decomposition where that is cheap."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.basis import DCT, Basis, Pixel, set_shape
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import generator_of
from unidiff.renamed import renamed_attribute

__all__ = ["BlockMean", "HeatBlur", "Inpainting", "Operator", "RandomProjection"]

_LONGEST_AXIS = 65536


@dataclass(frozen=True)
class Operator(PlainArguments, ABC):
    """A linear map A of the last axes of a sample, A = U diag(s) W^T, with U a basis and s the singular values.

    It acts on each channel separately: (B, C, *shape) to (B, C, *measured).

    Attributes:
        shape: The last axes of a sample that A acts on.
    """

    left = renamed_attribute("left", "left_singular_basis")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "left" in vars(cls):  # an operator written for the last release overrides the old name
            warnings.warn(f"{cls.__name__}.left is now called left_singular_basis.", DeprecationWarning, stacklevel=2)
            setattr(cls, "left_singular_basis", vars(cls)["left"])  # noqa: B010

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """Singular values s, at least 0, float64; broadcast against U^T y."""

    @property
    def left_singular_basis(self) -> Basis:
        """The basis U of measurements in which A A^T is diagonal; for most the identity."""
        return Pixel()

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """The measurement A x, (..., *measured), of x, (..., *shape)."""

    @abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """The back-projection A^T y, (..., *shape), of y, (..., *measured)."""

    def gram(self, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The function of a matrix f(A A^T) y = U f(s^2) U^T y, (..., *measured).

        Args:
            y: A measurement, (..., *measured).
            function: f, elementwise on tensors.
        """
        factors = function(self.singular_values**2).to(y.device, y.dtype, non_blocking=True)
        return self.left_singular_basis.inverse(factors * self.left_singular_basis.forward(y))

    def _require_last_axes(self, x: Tensor, shape: tuple[int, ...]) -> None:
        if x.shape[x.ndim - len(shape) :] != shape:
            problem = f"{type(self).__name__} takes tensors with last axes {shape}, got shape {tuple(x.shape)}"
            raise ParameterError("operator", problem)


@dataclass(frozen=True)
class HeatBlur(Operator):
    """The heat equation run for tau = blur^2 / 2, no flux at the border: a Gaussian blur of that standard deviation.

    A = V diag(exp(-lambda_k tau)) V^T in the cosine basis V, lambda_k = pi^2 sum_a (k_a / n_a)^2 (Rissanen et al. 2023,
    eq. 5-7). A is symmetric.

    Args:
        shape: Numbers of pixels along the last axes, (H, W).
        blur: Standard deviation of the blur, in pixels; at least 0.
    """

    shape: tuple[int, ...]
    blur: float

    def __post_init__(self) -> None:
        set_shape(self, most=_LONGEST_AXIS)
        require(0 <= self.blur < math.inf, "blur", self.blur, "a number >= 0, in pixels")

    @property
    def left_singular_basis(self) -> DCT:
        return DCT(self.shape)

    @cached_property
    def singular_values(self) -> Tensor:
        """exp(-lambda_k tau), (*shape)."""
        return torch.exp(-DCT(self.shape).eigenvalues() * self.blur**2 / 2)

    def apply(self, x: Tensor) -> Tensor:
        self._require_last_axes(x, self.shape)
        return DCT(self.shape).inverse(self.singular_values.to(x, non_blocking=True) * DCT(self.shape).forward(x))

    def transpose(self, y: Tensor) -> Tensor:
        return self.apply(y)


@dataclass(frozen=True)
class BlockMean(Operator):
    """The mean of each block of factor x ... x factor pixels: the measurement of super-resolution.

    With d axes A A^T = factor^(-d) I.

    Args:
        shape: Numbers of pixels along the last axes, (H, W); multiples of the factor.
        factor: Side of a block, in pixels, at least 1.
    """

    shape: tuple[int, ...]
    factor: int

    def __post_init__(self) -> None:
        require_whole("factor", self.factor)
        set_shape(self, most=_LONGEST_AXIS)
        fits = all(n % self.factor == 0 for n in self.shape)
        require(fits, "shape", self.shape, f"multiples of factor, {self.factor}")

    @property
    def singular_values(self) -> Tensor:
        """factor^(-d / 2), ()."""
        return torch.tensor(self.factor ** (-len(self.shape) / 2), dtype=torch.float64)

    def apply(self, x: Tensor) -> Tensor:
        self._require_last_axes(x, self.shape)
        blocks = [size for n in self.shape for size in (n // self.factor, self.factor)]
        inner = tuple(range(-1, -2 * len(self.shape), -2))
        return x.reshape(*x.shape[: x.ndim - len(self.shape)], *blocks).mean(inner)

    def transpose(self, y: Tensor) -> Tensor:
        """Each value distributed evenly over its block; see `Operator.transpose`."""
        self._require_last_axes(y, tuple(n // self.factor for n in self.shape))
        for axis in range(-len(self.shape), 0):
            y = y.repeat_interleave(self.factor, axis)
        return y * self.factor ** -len(self.shape)


class _Selection(Operator):
    """Some coordinates of an orthogonal transform Q of the flattened sample, y = (Q x)[indices]: A A^T = I."""

    shape: tuple[int, ...]

    @property
    @abstractmethod
    def _indices(self) -> Tensor:
        """The measured coordinates, (n,): indexing by a mask would synchronize the device."""

    def _rotate(self, flat: Tensor) -> Tensor:
        return flat

    _rotate_back = _rotate

    @property
    def singular_values(self) -> Tensor:
        return torch.ones((), dtype=torch.float64)

    def apply(self, x: Tensor) -> Tensor:
        self._require_last_axes(x, self.shape)
        flat = x.flatten(x.ndim - len(self.shape))
        return self._rotate(flat)[..., self._indices.to(x.device, non_blocking=True)]

    def transpose(self, y: Tensor) -> Tensor:
        self._require_last_axes(y, (len(self._indices),))
        rotated = y.new_zeros(*y.shape[:-1], math.prod(self.shape))
        rotated[..., self._indices.to(y.device, non_blocking=True)] = y
        return self._rotate_back(rotated).reshape(*y.shape[:-1], *self.shape)


@dataclass(frozen=True)
class Inpainting(_Selection):
    """The known pixels, as one long axis: (..., *shape) to (..., n). A A^T = I.

    Args:
        known: 1 or True where a pixel is known, (*shape), as a tensor or nested lists; at least one is.
    """

    known: tuple[object, ...]

    def __post_init__(self) -> None:
        try:
            mask = torch.as_tensor(self.known)
        except (TypeError, ValueError) as error:
            raise ParameterError("known", f"must be an array of 0 and 1 ({error})") from error
        fits = mask.ndim > 0 and bool(((mask == 0) | (mask == 1)).all()) and bool(mask.any())
        require(fits, "known", tuple(mask.shape), "an array of 0 and 1 that is not 0 everywhere")
        object.__setattr__(self, "known", _as_tuples(mask.long().tolist()))

    @cached_property
    def mask(self) -> Tensor:
        """The known pixels, (*shape), bool."""
        with torch.inference_mode(False):  # autograd saves it, so it must not be an inference tensor
            return torch.tensor(self.known, dtype=torch.bool)

    @cached_property
    def _indices(self) -> Tensor:
        with torch.inference_mode(False):
            return self.mask.flatten().nonzero().flatten()

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of the mask."""
        return tuple(self.mask.shape)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class RandomProjection(_Selection):
    """Compressed sensing: `count` random orthonormal directions, A A^T = I.

    Random sign flips of the pixels, a cosine transform of the flattened sample, and a random selection of `count`
    modes: a structurally random matrix (Do et al. 2012), which takes N log N operations and no memory.

    Args:
        shape: The last axes of a sample, with N = their product.
        count: Number of measurements, from 1 to N.
        seed: Seed of signs and modes, at least 0.
    """

    shape: tuple[int, ...]
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        set_shape(self, most=_LONGEST_AXIS)
        require_whole("count", self.count, 1, math.prod(self.shape))
        require_whole("seed", self.seed, 0, 2**62)

    @cached_property
    def _signs_and_modes(self) -> tuple[Tensor, Tensor]:
        size, generator = math.prod(self.shape), generator_of(self.seed)
        with torch.inference_mode(False):  # autograd saves them, so they must not be inference tensors
            signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
            return signs, torch.randperm(size, generator=generator)[: self.count]

    @property
    def _indices(self) -> Tensor:
        return self._signs_and_modes[1]

    def _rotate(self, flat: Tensor) -> Tensor:
        signs = self._signs_and_modes[0].to(flat.device, non_blocking=True)
        return DCT(flat.shape[-1:]).forward(flat * signs)

    def _rotate_back(self, flat: Tensor) -> Tensor:
        signs = self._signs_and_modes[0].to(flat.device, non_blocking=True)
        return DCT(flat.shape[-1:]).inverse(flat) * signs
