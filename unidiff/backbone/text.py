"""Captions to vectors: a small transformer over their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.base import DEEPEST, WIDEST, require_size
from unidiff.backbone.context import Attended, context_of
from unidiff.backbone.layers import attend, zeroed
from unidiff.condition.base import Condition, require_distinct
from unidiff.errors import ParameterError, require

__all__ = ["TextTransformer"]


class TextTransformer(nn.Module):
    """Self-attention over the tokens of a caption and one more, whose mean at the end is mapped to the vector.

    Args:
        conditions: Captions, or other conditions that can be attended to.
        size: Size D of the vector.
        width: Size of a token.
        heads: Number of heads, a divisor of `width`.
        depth: Number of layers.
    """

    def __init__(self, conditions: Sequence[Condition], size: int, width: int, heads: int, depth: int) -> None:
        require_size("size", size, WIDEST)
        require_size("text_width", width, WIDEST)
        require_size("heads", heads, WIDEST)
        require(width % heads == 0, "heads", heads, f"a divisor of text_width {width}")
        require_size("depth", depth, DEEPEST)
        require_distinct(conditions)
        super().__init__()
        if (context := context_of(conditions, width)) is None or len(context.attended) < len(conditions):
            other = next((own for own in conditions if own.name not in getattr(context, "attended", ())), None)
            got = "none" if other is None else repr(other)
            raise ParameterError("conditions", f"must be captions, or others that can be attended to, got {got}")
        self.conditions, self.context = tuple(conditions), context
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, size)

    def forward(self, **cond: Tensor) -> Tensor:
        """The vectors of conditions, (B, D); padding changes nothing."""
        device, values = self.head.weight.device, {}
        for condition in self.conditions:
            if (value := cond.get(condition.name)) is None:
                raise ParameterError(condition.name, f"must be {condition.words}, got none")
            values[condition.name] = value.to(device)
        tokens, exist = self.context(values)
        for layer in self.layers:
            tokens = layer(tokens, exist)
        vector: Tensor = self.head(Attended(self.norm(tokens), exist).mean())
        return vector


class _Layer(nn.Module):
    """Self-attention and a perceptron of one hidden layer, each after a norm and with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), zeroed(nn.Linear(width, width))
        self.inner, self.outer = nn.Linear(width, 4 * width), zeroed(nn.Linear(4 * width, width))

    def forward(self, h: Tensor, exist: Tensor) -> Tensor:
        """Map tokens, (B, L, width), to the same shape; those that do not exist, (B, L), get no weight."""
        q, k, v = self.qkv(self.norm1(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = h + self.project(attend(q, k, v, exist[:, None, None, :]).transpose(1, 2).flatten(2))
        mapped: Tensor = h + self.outer(F.silu(self.inner(self.norm2(h))))
        return mapped
