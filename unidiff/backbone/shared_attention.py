"""Attention by the weights of other rows of a batch: the mechanism of prompt-to-prompt (Hertz et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

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
        ParameterError: If the network has no cross-attention.
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
        self.shared = [_Shared(layer, pairs, until, places, emphasis) for layer in crossed]
        self.shared += [_Shared(layer, pairs, self_until) for layer in layers if not layer.to_context]

    def forward(self, x: Tensor, c: Tensor, *, _level: Level, **cond: Tensor) -> Tensor:
        """The output of the network, (2 N k, channels, *sizes)."""
        if isinstance(_level.time, Tensor):
            raise ParameterError("solver", "must go through the same times for all samples to share attention")
        for shared in self.shared:
            shared.active = _level.time > shared.until
        output: Tensor = self.network(x, c, **cond)
        return output


class _Shared:
    """Attention of one layer, in place of its own."""

    def __init__(
        self,
        layer: Any,
        pairs: int,
        until: float,
        places: Tensor | None = None,
        emphasis: Tensor | None = None,
    ) -> None:
        self.plain: Callable[..., Tensor] = layer.attend
        self.pairs, self.until = pairs, until
        self.places, self.emphasis, self.active = places, emphasis, False
        layer.attend = self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, exist: Tensor | None = None) -> Tensor:
        if self.emphasis is not None:
            first, second = self._halves(v)
            v = _joined(first, self.emphasis[:, None, :, None].to(v.dtype) * second)
        if not self.active:
            return self.plain(q, k, v, exist)
        if self.places is None:  # the weights of the same queries and keys
            return self.plain(*(_joined(*[self._halves(value)[0]] * 2) for value in (q, k)), v, exist)
        first, second = self._halves(attention_weights(q, k, exist))
        places = self.places[:, None, None].expand_as(second)
        taken = first.gather(-1, places.clamp(min=0))
        return _joined(first, torch.where(places < 0, second, taken)) @ v

    def _halves(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second rows, each (k, N, ...)."""
        first, second = value.unflatten(0, (-1, 2, self.pairs)).unbind(1)
        return first, second


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], 1).flatten(0, 2)
