"""Multilayer perceptrons: the networks for points and other small data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.base import DEEPEST, WIDEST, Backbone, require_size
from unidiff.backbone.layers import NoiseEmbedding, zeroed
from unidiff.backbone.text import TextTransformer
from unidiff.condition.base import Condition
from unidiff.errors import is_whole, require

__all__ = ["MLP", "DenseLayers", "check_dense"]


class DenseLayers(nn.Module):
    """The layers that `MLP` and `MLPEncoder` share."""

    def _build(
        self, shape: tuple[int, ...], width: int, depth: int, outputs: int, conditions: Sequence[Condition] = ()
    ) -> None:
        self.embedding = NoiseEmbedding(width, width, conditions)
        self.stem = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList([DenseBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = zeroed(nn.Linear(width, outputs))

    def _evaluate(self, x: Tensor, c: Tensor, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map samples, (B, *shape), their noise conditions, (B,), and conditions to (B, outputs)."""
        output: Tensor = self.head(self._hidden(x, c, values))
        return output

    def _hidden(
        self, x: Tensor, c: Tensor, values: Mapping[str, Tensor] | None = None, more: Tensor | None = None
    ) -> Tensor:
        e = self.embedding(c, values) if more is None else self.embedding(c, values) + more
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return F.silu(self.norm(h))


def check_dense(shape: tuple[int, ...], width: int, depth: int) -> None:
    """Raise a ParameterError if an argument is out of range."""
    sizes = isinstance(shape, (tuple, list)) and len(shape) > 0 and all(is_whole(n) for n in shape)
    require(sizes, "shape", shape, "one or more integers >= 1")
    require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
    require_size("width", width, WIDEST)
    require_size("depth", depth, DEEPEST)


class MLP(DenseLayers, Backbone):
    """Residual blocks of fully connected layers on the flattened sample. The output starts at exactly 0.

    Captions and other sequences are summarized in a vector, by a `TextTransformer` of one layer, that is added to the
    noise embedding.

    Args:
        shape: Shape of one sample, any number of axes.
        width: Size of the hidden layers, and of the sinusoidal noise embedding; even.
        depth: Number of residual blocks.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
        learned_variance: bool = False,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        check_dense(shape, width, depth)
        super().__init__(shape, classes, learned_variance=learned_variance, conditions=conditions)
        self._build(self.shape, width, depth, self.outputs * math.prod(shape[1:]), self.conditions)
        sequences = [
            own for own in self.conditions if own.name not in self.embedding.added and own.attended(width) is not None
        ]
        self.text = TextTransformer(sequences, width, width, 1, 1) if sequences else None
        self._require_entries({*self.embedding.added, *(own.name for own in sequences)})

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        values = self._values(cond, x)
        text = None if self.text is None else self.text(**{own.name: values[own.name] for own in self.text.conditions})
        output = self.head(self._hidden(x, c, values, text))
        return output.reshape(len(x), self.outputs, *self.shape[1:])


class DenseBlock(nn.Module):
    """LayerNorm-SiLU-linear twice around the noise embedding, with a shortcut; all of `width` features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, width)
        self.embed = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear2 = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map x, (B, width), and the noise embedding e, (B, width), to (B, width)."""
        h = self.linear1(F.silu(self.norm1(x))) + self.embed(e)
        return x + self.linear2(F.silu(self.norm2(h)))
