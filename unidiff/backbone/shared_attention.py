"""Attention by the weights of other rows of a batch: the mechanism of prompt-to-prompt (Hertz et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.layers import attention_weights
from unidiff.errors import ParameterError
from unidiff.process.level import Level

__all__ = ["SharingNetwork"]


class SharingNetwork(nn.Module):
    """A network whose attention takes, in the second N rows of 2 N, the weights of the first N, at early times.

    It has the parameters of the given one. A batch of 2 N k rows, as guidance makes of its k branches, is k such
    batches.

    Args:
        network: A network with `CrossAttention`.
        pairs: N.
        until: Weights of cross-attention are those of the first rows at times above this one.
        self_until: Weights of self-attention, likewise.
        places: For each pair and each token of the second context the token of the first one whose weight it takes, or
            -1 for its own weight, (N, tokens) int64; None if each takes that of its own place.
        emphasis: Factors of the weights of the second rows, (N, tokens); None for 1.

    Raises:
        ParameterError: If the network has no cross-attention, or self-attention that cannot be shared is to be.
    """

    takes_level = True

    def __init__(
        self,
        network: nn.Module,
        pairs: int,
        until: float,
        self_until: float,
        places: Tensor | None = None,
        emphasis: Tensor | None = None,
    ) -> None:
        super().__init__()
        own = chain(network.parameters(), network.buffers())
        self.network: Any = copy.deepcopy(network, {id(tensor): tensor for tensor in own})
        layers: list[Any] = [layer for layer in self.network.modules() if hasattr(layer, "to_context")]
        crossed = [layer for layer in layers if layer.to_context]
        if not crossed:
            problem = f"needs a network with cross-attention to a caption, got {type(network).__name__} without it"
            raise ParameterError("denoiser", problem)
        alone = [layer for layer in layers if not layer.to_context]
        if self_until < 1 and not alone:
            problem = f"must be 1: the self-attention of {type(network).__name__} is not shared, that of a U-Net is"
            raise ParameterError("self_until", problem)
        self.pairs = pairs
        self.rows = places, emphasis
        self.shared = [_Shared(layer, until) for layer in crossed] + [_Shared(layer, self_until) for layer in alone]
        self.crossed = len(crossed)

    def forward(self, x: Tensor, c: Tensor, *, _level: Level, **cond: Tensor) -> Tensor:
        """The output of the network, (2 N k, channels, *sizes)."""
        if isinstance(_level.time, Tensor):
            raise ParameterError("solver", "must go through the same times for all samples to share attention")
        if len(x) % (2 * self.pairs):
            problem = f"evaluates {len(x)} rows at a time, not both samples of each of {self.pairs} pairs together"
            raise ParameterError("denoiser", f"{problem}. Pass fewer seeds, or a guidance with a larger `chunk`.")
        places, emphasis = self.rows  # moved once
        self.rows = None if places is None else places.to(x.device), None if emphasis is None else emphasis.to(x)
        for number, shared in enumerate(self.shared):
            shared.active = _level.time > shared.until
            shared.branches = len(x) // (2 * self.pairs)
            shared.places, shared.emphasis = self.rows if number < self.crossed else (None, None)
        output: Tensor = self.network(x, c, **cond)
        return output


class _Shared:
    """Attention of one layer, in place of its own.

    A row is a sample, or of a network that works on frames or lines one of those of a sample, which follow each other.
    """

    def __init__(self, layer: Any, until: float) -> None:
        self.plain: Callable[..., Tensor] = layer.attend
        self.until, self.branches, self.active = until, 1, False
        self.places: Tensor | None = None
        self.emphasis: Tensor | None = None
        layer.attend = self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, exist: Tensor | None = None) -> Tensor:
        if self.emphasis is not None:
            first, second = self._halves(v)
            factors = self._for_each(self.emphasis, second)
            # Tokens before those of the context, the vectors of a block with cross-attention alone, keep their weight.
            factors = F.pad(factors, (v.shape[-2] - factors.shape[-1], 0), value=1.0)
            v = _joined(first, factors[:, None, :, None].to(v.dtype) * second)
        if not self.active:
            return self.plain(q, k, v, exist)
        if self.places is None:  # the weights of the same queries and keys
            return self.plain(*(self._of_the_first(value) for value in (q, k)), v, exist)
        first, second = self._halves(attention_weights(q, k, exist))
        places = self._for_each(self.places, second)
        before = second.shape[-1] - places.shape[-1]
        places = torch.where(places < 0, -1, places + before)
        same = torch.arange(before, device=places.device).expand(len(places), -1)
        places = torch.cat([same, places], 1)[:, None, None].expand_as(second)
        taken = first.detach().gather(-1, places.clamp(min=0))
        return _joined(first, torch.where(places < 0, second, taken)) @ v

    def _halves(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second rows, each (k, N, ...)."""
        first, second = value.unflatten(0, (self.branches, 2, -1)).unbind(1)
        return first, second

    def _of_the_first(self, value: Tensor) -> Tensor:
        """The first rows twice. No gradient reaches them from the second ones: the first samples stay what they are."""
        first, _ = self._halves(value)
        return _joined(first, first.detach())

    def _for_each(self, rows: Tensor, halves: Tensor) -> Tensor:
        """The rows of N pairs, for each of the (k, N, ...) rows of a half of a branch."""
        return rows.repeat_interleave(halves.shape[1] // len(rows), 0)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], 1).flatten(0, 2)
