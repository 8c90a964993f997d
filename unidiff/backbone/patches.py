"""What transformers over patches share: how a sample becomes tokens with positions, and how tokens become one again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.axes import (
    CONVOLUTIONS,
    name_samples,
    require_shape_of_rank,
    unfold_patches,
)
from unidiff.backbone.base import DEEPEST, WIDEST, require_size
from unidiff.backbone.context import AttendingBackbone, Entry, context_of
from unidiff.backbone.layers import NoiseEmbedding, sinusoidal, zeroed
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole

__all__ = ["FREQUENCIES", "PatchBackbone", "position_table"]

FREQUENCIES = 256  # size of the sinusoidal noise embedding, whatever the width


class PatchBackbone(AttendingBackbone):
    """A transformer over the patches of a sample, each mapped linearly to a token with a fixed position embedding.

    Args:
        shape: Shape of one sample: a signal (C, L), an image (C, H, W), a volume or a video (C, D, H, W). The sizes may
            differ.
        patch: Side of a patch in pixels; must divide the size of every axis.
        width: Size of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `width`.
        classes: See `Backbone`.
        learned_variance: See `Backbone`.
        conditions: See `Backbone`.
        factorized: Whether it works on each frame of a video.
        embedding: How the noise condition and the conditions that are vectors become features.
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int | None,
        learned_variance: bool,
        conditions: tuple[Condition, ...],
        factorized: bool = False,
        embedding: type[NoiseEmbedding] = NoiseEmbedding,
    ) -> None:
        require_shape_of_rank(shape, (3,) if factorized else (1, 2, 3))
        require_whole("patch", patch)
        require(is_whole(width) and width % 4 == 0, "width", width, "a multiple of 4, at least 4")
        require_size("width", width, WIDEST)
        require_size("depth", depth, DEEPEST)
        require_size("heads", heads, WIDEST)
        sides = tuple(shape[2:] if factorized else shape[1:])
        if any(side % patch for side in sides):
            divisor = math.gcd(*sides)
            fitting = ", ".join(str(p) for p in range(1, divisor + 1) if divisor % p == 0)
            problem = f"{name_samples(sides)} cannot be cut into patches of {'x'.join([str(patch)] * len(sides))}"
            raise ParameterError("patch", f"{problem}; use {fitting}.")
        if width % heads:
            raise ParameterError("heads", f"must divide the width, {width}, got {heads}")
        super().__init__(shape, classes, learned_variance=learned_variance, conditions=conditions)
        self.patch, self.factorized, self.grid = patch, factorized, tuple(side // patch for side in sides)
        self.embedding = embedding(FREQUENCIES, width, self.conditions, shift=1)
        self.stem = CONVOLUTIONS[len(sides)](self.inputs, width, patch, stride=patch)
        # Not a weight: it is not in checkpoints.
        self.register_buffer("positions", position_table(self.grid, width), persistent=False)
        self.context = context_of(self.conditions, width)
        self._require_entries(self.embedding.added, joins=True, context=self.context)

    def _last(self, width: int, adaptive: bool = True) -> None:
        """Make the last layers: a norm, adaptive or with a scale and a shift of its own, and the map to patches."""
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not adaptive)
        self.modulation = nn.Linear(width, 2 * width) if adaptive else None
        self.head = nn.Linear(width, self.patch ** len(self.grid) * self.outputs)

    def _initialize(self, endings: Iterable[nn.Module]) -> None:
        """Peebles & Xie 2023, section 3.2 and code: Glorot's weights, small embeddings, zeros where a branch ends."""
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, *CONVOLUTIONS.values())):
                nn.init.xavier_uniform_(layer.weight.flatten(1))  # type: ignore[operator]
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for weight in self.embedding.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        last = () if self.modulation is None else (self.modulation,)
        for ending in (*last, self.head, *endings):
            zeroed(ending)

    def _tokens(self, entry: Entry) -> Tensor:
        """The patches of what enters as tokens, (B, N, width)."""
        tokens: Tensor = self.stem(entry.x).flatten(2).transpose(1, 2) + self.positions
        return tokens

    def _sample(self, h: Tensor, e: Tensor) -> Tensor:
        """The output, (B, outputs, *sizes), of tokens, (B, N, width), and the noise embedding."""
        h = self.norm(h)
        if self.modulation is not None:
            shift, scale = self.modulation(e)[:, None].chunk(2, dim=2)
            h = h * (1 + scale) + shift
        patches: Any = self.head(h)
        # Within a patch the channels vary fastest, as in the code of Peebles & Xie.
        channels_first = patches.unflatten(2, (-1, self.outputs)).transpose(2, 3).flatten(2).transpose(1, 2)
        return unfold_patches(channels_first.unflatten(2, self.grid), self.patch)


def position_table(grid: Sequence[int], width: int) -> Tensor:
    """Fixed positions of the patches in C order: (number of patches, width), float32 as in diffusers.

    Of the features, in blocks of equal even size, the first embeds the position on the last axis, the second that on
    the axis before it, and so on, each as sines and then cosines; where the blocks cannot be equal, the first is the
    longest (Dosovitskiy et al. 2021, appendix D.4; the order for images is that of Peebles & Xie's code).
    """
    rank = len(grid)
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    size = width // (2 * rank) * 2
    sizes = [width - (rank - 1) * size, *[size] * (rank - 1)]
    return torch.cat([sinusoidal(axis.flatten(), n) for axis, n in zip(reversed(axes), sizes)], 1).float()
