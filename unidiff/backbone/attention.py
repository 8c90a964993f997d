"""How tokens attend to one another: softmax attention, or linear attention, whose cost is linear in their number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unidiff.arguments import PlainArguments
from unidiff.backbone.layers import attend

__all__ = ["Attention", "LinearAttention", "SoftmaxAttention"]

_LEAST = 1e-15  # denominators below it are those of queries without a positive feature, whose numerator is 0


@dataclass(frozen=True)
class Attention(PlainArguments, ABC):
    """How the values of tokens are averaged, given queries and keys. It has no weights."""

    @abstractmethod
    def average(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The average of the values for each query.

        Args:
            q: Queries, (B, heads, N, d).
            k: Keys, of the same shape.
            v: Values, of the same shape.

        Returns:
            Averages, (B, heads, N, d).
        """


@dataclass(frozen=True)
class SoftmaxAttention(Attention):
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1): N^2 d operations for N tokens."""

    def average(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention.average`."""
        return attend(q, k, v)


@dataclass(frozen=True)
class LinearAttention(Attention):
    """phi(q) (phi(k)^T v) / (phi(q) sum_j phi(k_j)), phi = ReLU: N d^2 operations for N tokens.

    The sum over keys is made once for all queries (Katharopoulos et al. 2020, eq. 4-5; with ReLU in Sana, Xie et al.
    2024, section 2.2). A query without a positive feature has the average 0.
    """

    def average(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention.average`; in float32 or better, as sums over all tokens overflow a half."""
        precise = torch.promote_types(q.dtype, torch.float32)
        features, keys = F.relu(q).to(precise), F.relu(k).to(precise)
        sums = features @ (keys.transpose(-1, -2) @ v.to(precise))
        weights = (features * keys.sum(-2, keepdim=True)).sum(-1, keepdim=True)
        return (sums / weights.clamp(min=_LEAST)).to(q.dtype)
