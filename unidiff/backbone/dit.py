"""The diffusion transformer of Peebles & Xie (2023): self-attention over patches, with adaptive layer norm."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.base import Backbone
from unidiff.backbone.context import Attended, CrossAttention, context_of
from unidiff.backbone.layers import NoiseEmbedding, attend, sinusoidal, zeroed
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole

__all__ = ["SIZES", "DiT", "DiTBlock", "position_table"]

FREQUENCIES = 256  # size of the sinusoidal noise embedding, whatever the width


# Width, depth and heads: Peebles & Xie 2023, table 1.
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


class DiT(Backbone):
    """A transformer over the patches of an image (Peebles & Xie 2023). The output starts at exactly 0.

    Every patch is mapped linearly to a token, a fixed position embedding is added, and `depth` blocks follow. Noise
    condition and class determine the scale and shift of their norms and the gates of their branches (adaLN-zero, their
    section 3.2). A last norm and a linear layer map tokens to patches. It works on pixels and on latents.

    The arithmetic is that of diffusers' `DiTTransformer2DModel`, so square networks can be exported exactly; it differs
    from the authors' code in the frequencies of the noise embedding, exp(-ln(10000) i / 127) for
    exp(-ln(10000) i / 128).

    Args:
        shape: (C, H, W) of one image. Not necessarily square.
        size: Named setting of the paper's table 1, which gives width, depth and heads where they are None: S 384, 12,
            6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
        patch: Side of a patch in pixels; must divide height and width. The paper's are 2, 4 and 8.
        width: Size of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `width`.
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
    ) -> None:
        require(isinstance(size, str) and size in SIZES, "size", size, "S, B, L or XL")
        width, depth, heads = (
            preset if value is None else value for preset, value in zip(SIZES[size], (width, depth, heads))
        )
        triple = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(map(is_whole, shape))
        require(triple, "shape", shape, "(channels, height, width), three integers >= 1")
        require_whole("patch", patch)
        require(is_whole(width) and width % 4 == 0, "width", width, "a multiple of 4, at least 4")
        require_whole("depth", depth)
        require_whole("heads", heads)
        _, height, breadth = shape
        if height % patch or breadth % patch:
            fitting = ", ".join(str(p) for p in range(1, min(height, breadth) + 1) if height % p == breadth % p == 0)
            problem = f"images of {height}x{breadth} pixels cannot be cut into patches of {patch}x{patch}"
            raise ParameterError("patch", f"{problem}; use {fitting}.")
        if width % heads:
            raise ParameterError("heads", f"must divide the width, {width}, got {heads}")
        super().__init__(shape, classes, learned_variance=learned_variance, conditions=conditions)
        self.patch = patch
        self.embedding = NoiseEmbedding(FREQUENCIES, width, self.conditions, shift=1)
        self.stem = nn.Conv2d(self.inputs, width, patch, stride=patch)
        # Not a weight: it is not in checkpoints.
        self.register_buffer("positions", position_table(height // patch, breadth // patch, width), persistent=False)
        self.context = context_of(self.conditions, width)
        self._require_entries(self.embedding.added, joins=True, context=self.context)
        crossed = self.context is not None
        self.blocks = nn.ModuleList([DiTBlock(width, heads, crossed) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, patch**2 * self.outputs)
        self._initialize()

    def _initialize(self) -> None:
        """Peebles & Xie 2023, section 3.2 and code: Glorot's weights, small embeddings, zeros where a branch ends."""
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(layer.weight.flatten(1))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for weight in self.embedding.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        crosses = [block.cross.project for block in self.blocks if block.cross is not None]  # type: ignore[union-attr]
        for ending in (self.modulation, self.head, *(block.modulation for block in self.blocks), *crosses):
            zeroed(ending)  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        values = self._values(cond, x)
        e = self.embedding(c, values)
        h = self.stem(self._joined(x, values))
        height = h.shape[2]
        h = h.flatten(2).transpose(1, 2) + self.positions
        context = None if self.context is None else self.context(values)
        for block in self.blocks:
            h = block(h, e, context)
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=2)
        patches = self.head(self.norm(h) * (1 + scale) + shift)
        p = self.patch
        return rearrange(patches, "b (y x) (p q c) -> b c (y p) (x q)", y=height, p=p, q=p)


class DiTBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after an adaptive norm and before a gate.

    (b1, s1, g1, b2, s2, g2) = W e + b, then h += g1 attention((1 + s1) LN(h) + b1) and h += g2 mlp((1 + s2) LN(h) + b2)
    (adaLN-zero: Peebles & Xie 2023, figure 3). W and b start at zero: at first the block is the identity.
    Between the two, `crossed` tokens attend to the conditions (Chen et al. 2024, PixArt-alpha; from memory).

    Args:
        width: Size of a token.
        heads: Number of heads, a divisor of `width`.
        crossed: Whether there are conditions to attend to.
    """

    def __init__(self, width: int, heads: int, crossed: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.cross = CrossAttention(width, width, heads) if crossed else None

    def forward(self, h: Tensor, e: Tensor, context: Attended | None = None) -> Tensor:
        """Map tokens h, (B, N, width), and the embedding e, (B, width), to (B, N, width)."""
        b1, s1, g1, b2, s2, g2 = self.modulation(e)[:, None].chunk(6, dim=2)
        q, k, v = self.qkv(self.norm1(h) * (1 + s1) + b1).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = h + g1 * self.project(attend(q, k, v).transpose(1, 2).flatten(2))
        if self.cross is not None and context is not None:
            h = self.cross(h, context)
        hidden = F.gelu(self.inner(self.norm2(h) * (1 + s2) + b2), approximate="tanh")
        return h + g2 * self.outer(hidden)


def position_table(height: int, breadth: int, width: int) -> Tensor:
    """Fixed positions of the patches, row by row: (height * breadth, width), float32 as in diffusers.

    The first half of the features embeds the column, the second the row, each as sines and then cosines of width / 4
    frequencies (Dosovitskiy et al. 2021, appendix D.4; the order is that of Peebles & Xie's code).
    """
    axes = (torch.arange(size, dtype=torch.float64) for size in (height, breadth))
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return torch.cat([sinusoidal(axis.flatten(), width // 2) for axis in (columns, rows)], 1).float()
