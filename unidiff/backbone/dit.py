"""The diffusion transformer of Peebles & Xie (2023): self-attention over patches, with adaptive layer norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.axes import (
    CONVOLUTIONS,
    name_samples,
    require_shape_of_rank,
    unfold_patches,
    unfold_time,
)
from unidiff.backbone.base import DEEPEST, WIDEST, require_size
from unidiff.backbone.context import Attended, AttendingBackbone, CrossAttention, context_of
from unidiff.backbone.layers import FrameAttention, NoiseEmbedding, attend, sinusoidal, zeroed
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole

__all__ = ["SIZES", "DiT", "DiTBlock", "position_table"]

FREQUENCIES = 256  # size of the sinusoidal noise embedding, whatever the width


# Width, depth and heads: Peebles & Xie 2023, table 1.
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


class DiT(AttendingBackbone):
    """A transformer over the patches of a sample (Peebles & Xie 2023). The output starts at exactly 0.

    Every patch is mapped linearly to a token, a fixed position embedding is added, and `depth` blocks follow. Noise
    condition and class determine the scale and shift of their norms and the gates of their branches (adaLN-zero, their
    section 3.2). A last norm and a linear layer map tokens to patches. It works on pixels and on latents.

    The arithmetic is that of diffusers' `DiTTransformer2DModel`, so square networks can be exported exactly; it differs
    from the authors' code in the frequencies of the noise embedding, exp(-ln(10000) i / 127) for
    exp(-ln(10000) i / 128).

    Args:
        shape: Shape of one sample: a signal (C, L), an image (C, H, W), a volume or a video (C, D, H, W). The sizes may
            differ.
        size: Named setting of the paper's table 1, which gives width, depth and heads where they are None: S 384, 12,
            6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
        patch: Side of a patch in pixels; must divide the size of every axis. The paper's are 2, 4 and 8.
        width: Size of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `width`.
        axial: Whether block i attends along one axis only, the last axis at first and then each axis in turn, instead
            of between all patches (Ho et al. 2019, Axial Attention).
        factorized: For videos (C, D, H, W): an image network on each frame, whose blocks are each followed by attention
            between the frames (`FrameAttention`). A video of one frame, or one that stands still, is treated exactly as
            an image by the same weights; the names of these are those of the image network.
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        size: Literal["S", "B", "L", "XL"] = "S",
        patch: int = 2,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        classes: int | None = None,
        learned_variance: bool = False,
        conditions: tuple[Condition, ...] = (),
        axial: bool = False,
        factorized: bool = False,
    ) -> None:
        require(isinstance(size, str) and size in SIZES, "size", size, "S, B, L or XL")
        width, depth, heads = (
            preset if value is None else value for preset, value in zip(SIZES[size], (width, depth, heads))
        )
        for name, flag in {"axial": axial, "factorized": factorized}.items():
            require(isinstance(flag, bool), name, flag, "true or false")
        require_shape_of_rank(shape, (3,) if factorized else (1, 2, 3))
        require_whole("patch", patch)
        require(is_whole(width) and width % 4 == 0, "width", width, "a multiple of 4, at least 4")
        require_size("width", width, WIDEST)
        require_size("depth", depth, DEEPEST)
        require_size("heads", heads, WIDEST)
        sides = tuple(shape[2:] if factorized else shape[1:])
        rank = len(sides)
        if any(side % patch for side in sides):
            divisor = math.gcd(*sides)
            fitting = ", ".join(str(p) for p in range(1, divisor + 1) if divisor % p == 0)
            problem = f"{name_samples(sides)} cannot be cut into patches of {'x'.join([str(patch)] * rank)}"
            raise ParameterError("patch", f"{problem}; use {fitting}.")
        if width % heads:
            raise ParameterError("heads", f"must divide the width, {width}, got {heads}")
        super().__init__(shape, classes, learned_variance=learned_variance, conditions=conditions)
        self.patch, self.factorized, self.grid = patch, factorized, tuple(side // patch for side in sides)
        self.embedding = NoiseEmbedding(FREQUENCIES, width, self.conditions, shift=1)
        self.stem = CONVOLUTIONS[rank](self.inputs, width, patch, stride=patch)
        # Not a weight: it is not in checkpoints.
        self.register_buffer("positions", position_table(self.grid, width), persistent=False)
        self.context = context_of(self.conditions, width)
        self._require_entries(self.embedding.added, joins=True, context=self.context)
        along = [rank - 1 - i % rank if axial else None for i in range(depth)]
        self.blocks = nn.ModuleList([DiTBlock(width, heads, axis, self.context is not None) for axis in along])
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, patch**rank * self.outputs)
        self._initialize()
        # Made last, so that the other weights are those of the image network from the same seed.
        self.temporal = nn.ModuleList([FrameAttention(width, heads) for _ in range(depth if factorized else 0)])

    def _initialize(self) -> None:
        """Peebles & Xie 2023, section 3.2 and code: Glorot's weights, small embeddings, zeros where a branch ends."""
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, *CONVOLUTIONS.values())):
                nn.init.xavier_uniform_(layer.weight.flatten(1))  # type: ignore[operator]
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for weight in self.embedding.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        crosses = [block.cross.project for block in self.blocks if block.cross is not None]  # type: ignore[union-attr]
        for ending in (self.modulation, self.head, *(block.modulation for block in self.blocks), *crosses):
            zeroed(ending)  # type: ignore[type-var]

    @property
    def deepest(self) -> int:  # type: ignore[override]
        """See `Backbone.evaluate`: one less than half the blocks, so that some are left between."""
        return (len(self.blocks) - 1) // 2

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        return self.evaluate(x, c, 0, **cond)[0]

    def evaluate(
        self, x: Tensor, c: Tensor, depth: int, features: Tensor | None = None, **cond: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.evaluate`: near are the first and the last blocks; the features are what the others add."""
        x, e, context, count = self._entered(x, c, cond)
        h = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        last = len(self.blocks) - depth
        before = kept = h
        for i, block in enumerate(self.blocks):
            if i == depth:
                before = h
            if i == last:
                h = h if features is None else before + features
                kept = h - before if features is None else features
            if features is None or not depth <= i < last:
                h = block(h, e, self.grid, context)
                if self.factorized:
                    h = self.temporal[i](h.unflatten(0, (count, -1))).flatten(0, 1)
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=2)
        patches = self.head(self.norm(h) * (1 + scale) + shift)
        # Within a patch the channels vary fastest, as in the authors' code.
        channels_first = patches.unflatten(2, (-1, self.outputs)).transpose(2, 3).flatten(2).transpose(1, 2)
        out = unfold_patches(channels_first.unflatten(2, self.grid), self.patch)
        return unfold_time(out, count) if self.factorized else out, kept


class DiTBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after an adaptive norm and before a gate.

    (b1, s1, g1, b2, s2, g2) = W e + b, then h += g1 attention((1 + s1) LN(h) + b1) and h += g2 mlp((1 + s2) LN(h) + b2)
    (adaLN-zero: Peebles & Xie 2023, figure 3). W and b start at zero: at first the block is the identity.
    Between the two, `crossed` tokens attend to the conditions (Chen et al. 2024, PixArt-alpha; from memory).

    Args:
        width: Size of a token.
        heads: Number of heads, a divisor of `width`.
        along: The axis of the grid, from 0, along which patches attend to one another; None for all patches jointly.
        crossed: Whether there are conditions to attend to.
    """

    def __init__(self, width: int, heads: int, along: int | None = None, crossed: bool = False) -> None:
        super().__init__()
        self.heads, self.along = heads, along
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.cross = CrossAttention(width, width, heads) if crossed else None

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """Map tokens h, (B, N, width), of patches in this grid, and the embedding e, (B, width), to (B, N, width)."""
        b1, s1, g1, b2, s2, g2 = self.modulation(e)[:, None].chunk(6, dim=2)
        tokens = self.qkv(self.norm1(h) * (1 + s1) + b1)
        if self.along is not None:  # lines of patches, each attending within itself
            lines = tokens.unflatten(1, grid).movedim(1 + self.along, -2)
            tokens, outer = lines.flatten(0, -3), lines.shape[:-2]
        q, k, v = tokens.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v).transpose(1, 2).flatten(2)
        if self.along is not None:
            attended = attended.unflatten(0, outer).movedim(-2, 1 + self.along).flatten(1, -2)
        h = h + g1 * self.project(attended)
        if self.cross is not None and context is not None:
            h = self.cross(h, context)
        hidden = F.gelu(self.inner(self.norm2(h) * (1 + s2) + b2), approximate="tanh")
        return h + g2 * self.outer(hidden)


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
