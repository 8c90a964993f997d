"""Linear measurements y = A x, each with its singular value decomposition where that is cheap."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from unidiff.basis import DCT, Basis, Pixel
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import generator_of

__all__ = ["BlockMean", "HeatBlur", "Inpainting", "Operator", "RandomProjection"]


@dataclass(frozen=True)
class Operator(ABC):
    """A linear map A of the last axes of a sample, A = U diag(s) W^T, with U a basis and s the singular values.

    It acts on each channel separately: (B, C, *shape) to (B, C, *measured).

    Attributes:
        shape: The last axes of a sample that A acts on.
    """

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """Singular values s, at least 0, float64; broadcast against U^T y."""

    @property
    def left(self) -> Basis:
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
        return self.left.inverse(factors * self.left.forward(y))

    def _require_pixels(self, x: Tensor, shape: tuple[int, ...]) -> None:
        if x.shape[x.ndim - len(shape) :] != shape:
            problem = f"{type(self).__name__} takes tensors with last axes {shape}, got shape {tuple(x.shape)}"
            raise ParameterError("operator", problem)


def _sizes(operator: Operator, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as a tuple (recipes have lists), validated and stored in the frozen operator."""
    sizes = tuple(shape)
    require(len(sizes) > 0, "shape", sizes, "at least one axis, such as (28, 28)")
    for n in sizes:
        require_whole("shape", n, 1, 65536)
    object.__setattr__(operator, "shape", sizes)
    return sizes


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
        _sizes(self, self.shape)
        require(0 <= self.blur < math.inf, "blur", self.blur, "a number >= 0, in pixels")

    @property
    def left(self) -> DCT:
        """The cosines."""
        return DCT(self.shape)

    @cached_property
    def singular_values(self) -> Tensor:
        """exp(-lambda_k tau), (*shape)."""
        return torch.exp(-self.left.eigenvalues() * self.blur**2 / 2)

    def apply(self, x: Tensor) -> Tensor:
        """The blurred image; see `Operator.apply`."""
        self._require_pixels(x, self.shape)
        return self.left.inverse(self.singular_values.to(x.device, x.dtype, non_blocking=True) * self.left.forward(x))

    def transpose(self, y: Tensor) -> Tensor:
        """The same blur; see `Operator.transpose`."""
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
        sizes = _sizes(self, self.shape)
        require(all(n % self.factor == 0 for n in sizes), "shape", sizes, f"multiples of factor, {self.factor}")

    @property
    def singular_values(self) -> Tensor:
        """factor^(-d / 2), ()."""
        return torch.tensor(self.factor ** (-len(self.shape) / 2), dtype=torch.float64)

    def apply(self, x: Tensor) -> Tensor:
        """The small image; see `Operator.apply`."""
        self._require_pixels(x, self.shape)
        blocks = [size for n in self.shape for size in (n // self.factor, self.factor)]
        inner = tuple(range(-1, -2 * len(self.shape), -2))
        return x.reshape(*x.shape[: x.ndim - len(self.shape)], *blocks).mean(inner)

    def transpose(self, y: Tensor) -> Tensor:
        """Each value distributed evenly over its block; see `Operator.transpose`."""
        self._require_pixels(y, tuple(n // self.factor for n in self.shape))
        for axis in range(-len(self.shape), 0):
            y = y.repeat_interleave(self.factor, axis)
        return y * self.factor ** -len(self.shape)


@dataclass(frozen=True)
class Inpainting(Operator):
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
        object.__setattr__(self, "known", _nested(mask.long().tolist()))

    @cached_property
    def mask(self) -> Tensor:
        """The known pixels, (*shape), bool."""
        with torch.inference_mode(False):  # autograd saves it, so it must not be an inference tensor
            return torch.tensor(self.known, dtype=torch.bool)

    @cached_property
    def _indices(self) -> Tensor:
        """Indices of the known pixels in a flattened image, (n,): indexing by a mask would synchronize the device."""
        with torch.inference_mode(False):
            return self.mask.flatten().nonzero().flatten()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the mask."""
        return tuple(self.mask.shape)

    @property
    def singular_values(self) -> Tensor:
        """1, ()."""
        return torch.ones((), dtype=torch.float64)

    def apply(self, x: Tensor) -> Tensor:
        """The known pixels; see `Operator.apply`."""
        self._require_pixels(x, self.shape)
        return x.flatten(x.ndim - len(self.shape))[..., self._indices.to(x.device, non_blocking=True)]

    def transpose(self, y: Tensor) -> Tensor:
        """An image that is 0 at unknown pixels; see `Operator.transpose`."""
        self._require_pixels(y, (len(self._indices),))
        x = y.new_zeros(*y.shape[:-1], self.mask.numel())
        x[..., self._indices.to(y.device, non_blocking=True)] = y
        return x.reshape(*y.shape[:-1], *self.shape)


def _nested(value: object) -> tuple[object, ...]:
    return tuple(_nested(entry) if isinstance(entry, list) else entry for entry in value)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RandomProjection(Operator):
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
    _signs_and_modes: tuple[Tensor, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = math.prod(_sizes(self, self.shape))
        require_whole("count", self.count, 1, size)
        require_whole("seed", self.seed, 0, 2**62)
        generator = generator_of(self.seed)
        with torch.inference_mode(False):  # autograd saves them, so they must not be inference tensors
            signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
            modes = torch.randperm(size, generator=generator)[: self.count]
        object.__setattr__(self, "_signs_and_modes", (signs, modes))

    @property
    def singular_values(self) -> Tensor:
        """1, ()."""
        return torch.ones((), dtype=torch.float64)

    def apply(self, x: Tensor) -> Tensor:
        """The projections, (..., count); see `Operator.apply`."""
        self._require_pixels(x, self.shape)
        signs, modes = (tensor.to(x.device, non_blocking=True) for tensor in self._signs_and_modes)
        flat = x.flatten(x.ndim - len(self.shape))
        return DCT((len(signs),)).forward(flat * signs)[..., modes]

    def transpose(self, y: Tensor) -> Tensor:
        """The combination of the directions; see `Operator.transpose`."""
        self._require_pixels(y, (self.count,))
        signs, modes = (tensor.to(y.device, non_blocking=True) for tensor in self._signs_and_modes)
        spread = y.new_zeros(*y.shape[:-1], len(signs))
        spread[..., modes] = y
        return (DCT((len(signs),)).inverse(spread) * signs).reshape(*y.shape[:-1], *self.shape)
