"""Captions and other embeddings as conditions: sequences of any length up to a largest one, padded to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.condition.base import NULL, Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole
from unidiff.tensors import described

__all__ = ["Embedding", "Tokens"]


@dataclass(frozen=True)
class Tokens(Condition):
    """A caption for each sample, integers (B, up to length); padded with -1, and an empty caption is no condition.

    Every pixel attends to the tokens; padding has no weight (Rombach et al. 2022, section 3.3).

    Args:
        length: Largest number of tokens, from 1.
        vocabulary: Number of different tokens, which are numbered from 0.
        name: Its keyword.
    """

    length: int
    vocabulary: int
    name: str = field(default="tokens", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("length", self.length, 1, 65536)
        require_whole("vocabulary", self.vocabulary, 1, 10_000_000)

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"up to {self.length} integers from 0 to {self.vocabulary - 1} for each sample, padded with -1"

    def null(self, count: int, like: Tensor) -> Tensor:
        """Padding alone."""
        return torch.full((count, self.length), NULL, device=like.device)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` captions, padded to `length`."""
        fits = isinstance(value, Tensor) and value.ndim == 2 and len(value) == count and value.shape[1] <= self.length
        if not fits or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            allowed = f"integers of shape ({count}, at most {self.length}), padded with -1"
            raise ParameterError(self.name, f"must be {allowed}, got {described(value)}")
        value = value.to(torch.int64)
        wrong = value[(value < NULL) | (value >= self.vocabulary)]
        if len(wrong):
            allowed = f"from 0 to {self.vocabulary - 1}, or -1 (padding)"
            raise ParameterError(self.name, f"must be {allowed}, got {int(wrong[0])}")
        return self.padded(value)

    def padded(self, value: Tensor) -> Tensor:
        """With -1 to `length`."""
        return _padded(value, self.length, NULL)

    def attended(self, width: int) -> nn.Module:
        """A learned vector for each token and each position."""
        return _TokenVectors(self.length, self.vocabulary, width)


@dataclass(frozen=True)
class Embedding(Condition):
    """A vector (D,), or a sequence of up to L vectors (L, D), for each sample; zeros are no condition.

    A vector is added to the noise embedding after a linear map without bias, so that zeros add nothing. Every pixel
    attends to a sequence, in which vectors of zeros are padding.

    Args:
        shape: (D,), or (L, D) with L the largest length.
        name: Its keyword.
    """

    shape: tuple[int, ...]
    name: str = field(default="embedding", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.shape, (tuple, list)) and len(self.shape) in (1, 2) and all(map(is_whole, self.shape))
        require(fits, "shape", self.shape, "(D,) or (L, D), integers >= 1")

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"{self.shape} for each sample (zeros = unconditional)"

    def null(self, count: int, like: Tensor) -> Tensor:
        """Zeros."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return torch.zeros(count, *self.shape, device=like.device, dtype=dtype)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` finite vectors or sequences, padded to the largest length."""
        *most, size = self.shape
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 1 + len(self.shape)
        if not fits or len(value) != count or value.shape[-1] != size or any(value.shape[1] > n for n in most):
            needed = f"({count}, {''.join(f'at most {n}, ' for n in most)}{size})"
            raise ParameterError(self.name, f"must be floats of shape {needed}, got {described(value)}")
        require(bool(value.isfinite().all()), self.name, "values with NaN or infinity", "finite numbers")
        return self.padded(value)

    def padded(self, value: Tensor) -> Tensor:
        """A sequence with zeros to the largest length."""
        return _padded(value, self.shape[0], 0.0) if len(self.shape) > 1 else value

    def added(self, width: int) -> nn.Module | None:
        """A linear map without bias, of a vector."""
        return None if len(self.shape) > 1 else _Linear(self.shape[0], width, bias=False)

    def attended(self, width: int) -> nn.Module | None:
        """A linear map and a learned vector for each position, of a sequence."""
        if len(self.shape) == 1:
            return None
        length, size = self.shape
        return _VectorTokens(length, size, width)


def _padded(value: Tensor, length: int, fill: float) -> Tensor:
    """Sequences (B, l, ...) padded to (B, length, ...): one shape of arithmetic, and so one rounding."""
    missing = length - value.shape[1]
    return F.pad(value, (*[0, 0] * (value.ndim - 2), 0, missing), value=fill) if missing else value


class _Linear(nn.Linear):
    """A linear layer of vectors in any floating type."""

    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value.to(self.weight.dtype))


class _TokenVectors(nn.Module):
    """Learned vectors of tokens and positions; padding is masked."""

    def __init__(self, length: int, vocabulary: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        value = _padded(value, len(self.position), NULL)
        return self.token(value.clamp(min=0)) + self.position, value >= 0


class _VectorTokens(nn.Module):
    """Vectors mapped linearly, with learned positions; vectors of zeros are masked."""

    def __init__(self, length: int, size: int, width: int) -> None:
        super().__init__()
        self.project = _Linear(size, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        value = _padded(value, len(self.position), 0.0)
        return self.project(value) + self.position, (value != 0).any(-1)
