"""Conditions that enter a network as a vector: a class, a number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.condition.base import NULL, Condition
from unidiff.errors import ParameterError, require, require_whole
from unidiff.tensors import described

__all__ = ["Label", "Scalar"]

_COSINES = 32  # of a number in its range


@dataclass(frozen=True)
class Label(Condition):
    """The class of each sample, integers (B,) from 0; -1, the null class, is no condition.

    Args:
        classes: Number of classes, from 1.
        name: Its keyword.
    """

    classes: int
    name: str = field(default="label", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("classes", self.classes, 1, 1_000_000)

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"a class from 0 to {self.classes - 1}, or -1 (unconditional), for each sample"

    def null(self, count: int, like: Tensor) -> Tensor:
        """The null class of every sample."""
        return torch.full((count,), NULL, device=like.device)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` integers from -1 to classes - 1."""
        self.check_in_loop(value.cpu() if isinstance(value, Tensor) else value, count)
        return value.long()  # in bytes the null class would be 255

    def check_in_loop(self, value: Tensor, count: int) -> None:
        """See `Condition.check_in_loop`; dtype and shape on every device."""
        fits = isinstance(value, Tensor) and value.shape == (count,)
        if not fits or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise ParameterError(
                self.name, f"must be integers, one for each of {count} samples, got {described(value)}"
            )
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            return
        value = value.to(torch.int64)  # in bytes -1 would be 255
        wrong = value[(value < NULL) | (value >= self.classes)]
        if len(wrong):
            allowed = f"from 0 to {self.classes - 1}, or -1 (unconditional)"
            raise ParameterError(self.name, f"must be {allowed}, got {int(wrong[0])}")

    def added(self, width: int) -> nn.Module:
        """A learned vector for each class and for the null class (Dhariwal & Nichol 2021; Ho & Salimans 2022)."""
        return _ClassVectors(1 + self.classes, width)


class _ClassVectors(nn.Embedding):
    """A vector for each class; that of the null class is row 0."""

    def forward(self, label: Tensor) -> Tensor:
        return super().forward(label.long() + 1)


@dataclass(frozen=True)
class Scalar(Condition):
    """A number for each sample, floats (B,) from `low` to `high`; NaN is no condition.

    Args:
        low: Least value.
        high: Largest value, above `low`.
        name: Its keyword.
    """

    low: float = 0.0
    high: float = 1.0
    name: str = field(default="scalar", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(math.isfinite(self.low), "low", self.low, "a finite number")
        require(self.low < self.high < math.inf, "high", self.high, f"a finite number above low = {self.low:g}")

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"a number from {self.low:g} to {self.high:g}, or NaN (unconditional), for each sample"

    def null(self, count: int, like: Tensor) -> Tensor:
        """NaN for every sample."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return torch.full((count,), math.nan, device=like.device, dtype=dtype)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` floats in the range."""
        if not isinstance(value, Tensor) or value.shape != (count,) or not value.is_floating_point():
            raise ParameterError(self.name, f"must be floats, one for each of {count} samples, got {described(value)}")
        wrong = value[(value < self.low) | (value > self.high)]
        if len(wrong):
            allowed = f"from {self.low:g} to {self.high:g}, or NaN (unconditional)"
            raise ParameterError(self.name, f"must be {allowed}, got {float(wrong[0]):g}")
        return value

    def added(self, width: int) -> nn.Module:
        """A two-layer perceptron of cosines over the range; a learned vector for none."""
        return _NumberVectors(self.low, self.high, width)


class _NumberVectors(nn.Module):
    """Vectors of numbers in a range, from cos(pi k s), k = 0, 1, ..., of the position s in [0, 1] in the range."""

    def __init__(self, low: float, high: float, width: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.inner, self.outer = nn.Linear(_COSINES, width), nn.Linear(width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, value: Tensor) -> Tensor:
        weight = self.inner.weight
        missing = value.isnan()
        position = ((value - self.low) / (self.high - self.low)).masked_fill(missing, 0.0).to(weight.dtype)
        order = torch.arange(_COSINES, device=value.device, dtype=weight.dtype)
        vectors = self.outer(F.silu(self.inner(torch.cos(math.pi * order * position[:, None]))))
        return torch.where(missing[:, None], self.null, vectors)
