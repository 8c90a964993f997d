"""Cross-attention: every pixel attends to captions and other sequences (Rombach et al. 2022, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unidiff.backbone.axes import fold_time
from unidiff.backbone.base import Backbone
from unidiff.backbone.layers import NoiseEmbedding, add_layers, attend, zeroed
from unidiff.condition.base import Condition

__all__ = ["Attended", "AttendingBackbone", "Context", "CrossAttention", "Entered", "Entry", "context_of"]


class Attended(NamedTuple):
    """Tokens, (B, L, width), and which of them exist, (B, L) bool."""

    tokens: Tensor
    exist: Tensor

    def mean(self) -> Tensor:
        """The mean of the tokens that exist, (B, width); of a `Context` one always does."""
        share = self.exist.to(self.tokens.dtype) / self.exist.sum(1, keepdim=True)
        return (share[:, None] @ self.tokens)[:, 0]

    def repeat(self, frames: int) -> Attended:
        """The same for each frame of a video, as many rows in turn."""
        return Attended(self.tokens.repeat_interleave(frames, 0), self.exist.repeat_interleave(frames, 0))


class Context(nn.Module):
    """The tokens of all conditions that are attended to, behind a learned one which always exists.

    Where nothing is said that one has all the weight: the softmax over no tokens would be undefined.

    Args:
        layers: The layer of each condition that is attended to, by name; see `Condition.attended`.
        width: Size of a token.
    """

    def __init__(self, layers: Mapping[str, nn.Module | None], width: int) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.attended = add_layers(self, layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, values: Mapping[str, Tensor]) -> Attended:
        """The tokens of the values of all conditions, (B, 1 + L, width), normalized."""
        parts = [getattr(self, layer)(values[name]) for name, layer in self.attended.items()]
        count, first = len(parts[0][0]), self.nothing.expand(1, 1, -1)
        tokens = torch.cat([first.expand(count, -1, -1), *(tokens for tokens, _ in parts)], dim=1)
        always = torch.ones(count, 1, dtype=torch.bool, device=tokens.device)
        return Attended(self.norm(tokens), torch.cat([always, *(exist for _, exist in parts)], dim=1))


def context_of(conditions: Sequence[Condition], width: int) -> Context | None:
    """The context of a network; None if no condition is attended to, so that its weights are those of one without."""
    layers = {condition.name: condition.attended(width) for condition in conditions}
    return Context(layers, width) if any(layer is not None for layer in layers.values()) else None


class Entry(NamedTuple):
    """What enters the layers of a network: the joined input, the noise embedding and what is attended to.

    Of a factorized network these are those of each frame.
    """

    x: Tensor
    e: Tensor
    context: Attended | None
    samples: int


class Entered(nn.Module):
    """A module that conditions enter in each of the three ways, and that may work on the frames of videos."""

    conditions: tuple[Condition, ...]
    embedding: NoiseEmbedding
    context: Context | None
    factorized: bool

    def _enter(self, x: Tensor, c: Tensor, values: Mapping[str, Tensor]) -> Entry:
        """What enters, given a value of each condition."""
        count = len(x)
        context = None if self.context is None else self.context(values)
        e = self._embedded(c, values, context)
        if images := [values[condition.name].to(x.dtype) for condition in self.conditions if condition.joined]:
            x = torch.cat([x, *images], dim=1)
        if self.factorized:
            frames = x.shape[2]
            x, e = fold_time(x), e.repeat_interleave(frames, 0)
            context = context and context.repeat(frames)
        return Entry(x, e, context, count)

    def _embedded(self, c: Tensor, values: Mapping[str, Tensor], context: Attended | None) -> Tensor:
        """The noise embedding, with the conditions that are vectors."""
        e: Tensor = self.embedding(c, values)
        return e


class AttendingBackbone(Entered, Backbone):
    """A network that conditions enter in each of the three ways, and that may work on the frames of videos."""

    def _entered(self, x: Tensor, c: Tensor, cond: Mapping[str, Tensor]) -> Entry:
        """What enters, the null condition where one is missing."""
        return self._enter(x, c, self._values(cond, x))


class CrossAttention(nn.Module):
    """h + proj(softmax(Q K^T / sqrt(d)) V), with queries of the pixels and keys and values of a context.

    What does not exist gets a weight of exactly 0. The projection starts at zero: at first the layer is the identity.

    Args:
        channels: Channels of the pixels.
        width: Size of a token of the context.
        heads: Number of heads, a divisor of `channels`.
    """

    attend = staticmethod(attend)  # which `backbone.shared_attention` replaces
    to_context = True

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.q, self.kv = nn.Linear(channels, channels), nn.Linear(width, 2 * channels)
        self.project = zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor, context: Attended) -> Tensor:
        """Map pixels (B, N, channels) to the same shape."""
        q = self.q(self.norm(h)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context.tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = self.attend(q, k, v, context.exist[:, None, None, :])
        return h + self.project(found.transpose(1, 2).flatten(2))
