"""The blocks of a DiT: self-attention and a perceptron, and the ways in which noise level and conditions enter.

The four designs of Peebles & Xie (2023, section 3.2) and that of PixArt-alpha (Chen et al. 2023, section 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.attention import Attention
from unidiff.backbone.context import Attended, CrossAttention
from unidiff.backbone.layers import NoiseEmbedding
from unidiff.condition.base import Condition

__all__ = [
    "AdaLNBlock",
    "AdaLNSingleBlock",
    "AdaLNZeroBlock",
    "BlockSettings",
    "CrossAttendedBlock",
    "DiTBlock",
    "NoiseTokens",
    "PlainBlock",
]


class BlockSettings(NamedTuple):
    """What a block is made of, whatever its design.

    Attributes:
        width: Size of a token.
        heads: Number of heads, a divisor of `width`.
        attention: How tokens attend to one another.
        along: The axis of the grid, from 0, along which patches attend to one another; None for all patches jointly.
        crossed: Whether there are conditions, such as captions, to attend to.
    """

    width: int
    heads: int
    attention: Attention
    along: int | None = None
    crossed: bool = False


class DiTBlock(nn.Module):
    """What every block has: norms, self-attention, a perceptron of two layers, and cross-attention to captions.

    Args:
        settings: See `BlockSettings`.
        modulations: How many vectors of the width a linear layer of its own makes from the noise embedding.
        affine: Whether the norms have a scale and a shift of their own.
        crossed: Whether the block attends to something beside its tokens.
    """

    def __init__(
        self, settings: BlockSettings, modulations: int = 0, affine: bool = False, crossed: bool | None = None
    ) -> None:
        super().__init__()
        width = settings.width
        self.heads, self.attention, self.along = settings.heads, settings.attention, settings.along
        self.modulation = nn.Linear(width, modulations * width) if modulations else None
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        crossed = settings.crossed if crossed is None else crossed
        self.cross = CrossAttention(width, width, settings.heads) if crossed else None

    def endings(self) -> list[nn.Module]:
        """The layers that start at zero."""
        return [layer for layer in (self.modulation, self.cross and self.cross.project) if layer is not None]

    def attend(self, h: Tensor, grid: Sequence[int]) -> Tensor:
        """Self-attention of tokens, (B, N, width), of patches in this grid."""
        tokens = self.qkv(h)
        if self.along is not None:  # lines of patches, each attending within itself
            lines = tokens.unflatten(1, grid).movedim(1 + self.along, -2)
            tokens, outer = lines.flatten(0, -3), lines.shape[:-2]
        q, k, v = tokens.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        averages = self.attention.average(q, k, v).transpose(1, 2).flatten(2)
        if self.along is not None:
            averages = averages.unflatten(0, outer).movedim(-2, 1 + self.along).flatten(1, -2)
        mapped: Tensor = self.project(averages)
        return mapped

    def perceptron(self, h: Tensor) -> Tensor:
        """Two layers on each token, (B, N, width)."""
        mapped: Tensor = self.outer(F.gelu(self.inner(h), approximate="tanh"))
        return mapped

    def crossing(self, h: Tensor, context: Attended | None) -> Tensor:
        """Tokens that have attended to the conditions, where there are some."""
        return h if self.cross is None or context is None else self.cross(h, context)

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """Map tokens to the same shape.

        Args:
            h: Tokens of the patches, (B, N, width).
            e: What the design makes of noise condition and conditions.
            grid: The numbers of patches on the axes.
            context: What conditions give to attend to.
        """
        raise NotImplementedError


class AdaLNZeroBlock(DiTBlock):
    """(b1, s1, g1, b2, s2, g2) = W e + b, h += g1 attention((1 + s1) LN(h) + b1), h += g2 mlp((1 + s2) LN(h) + b2).

    Peebles & Xie 2023, figure 3. W and b start at zero: at first the block is the identity. Between the two, `crossed`
    tokens attend to the conditions (Chen et al. 2023, PixArt-alpha, figure 4).
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__(settings, modulations=6)

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """See `DiTBlock.forward`; e is the noise embedding, (B, width)."""
        return self._gated(h, self.modulation(e)[:, None].chunk(6, dim=2), grid, context)  # type: ignore[misc]

    def _gated(self, h: Tensor, modulations: Sequence[Tensor], grid: Sequence[int], context: Attended | None) -> Tensor:
        b1, s1, g1, b2, s2, g2 = modulations
        h = h + g1 * self.attend(self.norm1(h) * (1 + s1) + b1, grid)
        h = self.crossing(h, context)
        return h + g2 * self.perceptron(self.norm2(h) * (1 + s2) + b2)


class AdaLNSingleBlock(AdaLNZeroBlock):
    """`AdaLNZeroBlock` whose W is shared by all blocks: (b1, s1, g1, b2, s2, g2) = (W e + b) + E, with E of the block.

    Chen et al. 2023, PixArt-alpha, section 2.3. W, b and E start at zero: at first the block is the identity.
    """

    def __init__(self, settings: BlockSettings) -> None:
        DiTBlock.__init__(self, settings)
        self.table = nn.Parameter(torch.zeros(6, settings.width))

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """See `DiTBlock.forward`; e is W e + b, (B, 6 width)."""
        return self._gated(h, (e.unflatten(1, (6, -1)) + self.table)[:, None].unbind(2), grid, context)


class AdaLNBlock(DiTBlock):
    """(b1, s1, b2, s2) = W e + b, h += attention((1 + s1) LN(h) + b1), h += mlp((1 + s2) LN(h) + b2).

    Peebles & Xie 2023, section 3.2. W and b start at zero: at first the block does not depend on e.
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__(settings, modulations=4)

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """See `DiTBlock.forward`; e is the noise embedding, (B, width)."""
        b1, s1, b2, s2 = self.modulation(e)[:, None].chunk(4, dim=2)  # type: ignore[misc]
        h = h + self.attend(self.norm1(h) * (1 + s1) + b1, grid)
        h = self.crossing(h, context)
        return h + self.perceptron(self.norm2(h) * (1 + s2) + b2)


class PlainBlock(DiTBlock):
    """h += attention(LN(h)), h += mlp(LN(h)): noise level and conditions are among the tokens (in-context).

    Peebles & Xie 2023, section 3.2; Dosovitskiy et al. 2021, eq. 2-3. Its norms have a scale and a shift of their own.
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__(settings, affine=True)

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """See `DiTBlock.forward`; e is not used."""
        h = h + self.attend(self.norm1(h), grid)
        h = self.crossing(h, context)
        return h + self.perceptron(self.norm2(h))


class CrossAttendedBlock(PlainBlock):
    """h += attention(LN(h)), h += cross-attention(LN(h), e), h += mlp(LN(h)), with e a sequence of vectors.

    Peebles & Xie 2023, section 3.2: noise level and class are vectors of their own, to which every patch attends, with
    the tokens of captions behind them. The cross-attention ends in zeros: at first it adds nothing.
    """

    def __init__(self, settings: BlockSettings) -> None:
        DiTBlock.__init__(self, settings, affine=True, crossed=True)

    def forward(self, h: Tensor, e: Tensor, grid: Sequence[int] = (), context: Attended | None = None) -> Tensor:
        """See `DiTBlock.forward`; e are the vectors, (B, n, width)."""
        exist = torch.ones(e.shape[:2], dtype=torch.bool, device=e.device)
        if context is not None:
            e, exist = torch.cat([e, context.tokens], 1), torch.cat([exist, context.exist], 1)
        return super().forward(h, e, grid, Attended(e, exist))


class NoiseTokens(NoiseEmbedding):
    """The noise condition and each condition that is a vector as tokens of their own, normalized; see `NoiseEmbedding`.

    Args:
        width: See `NoiseEmbedding`.
        features: Size of a token.
        conditions: See `NoiseEmbedding`.
        shift: See `NoiseEmbedding`.
    """

    def __init__(self, width: int, features: int, conditions: Sequence[Condition] = (), shift: int = 0) -> None:
        super().__init__(width, features, conditions, shift)
        self.norm = nn.LayerNorm(features)

    def forward(self, c: Tensor, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map c, (B,), and n conditions to (B, 1 + n, features)."""
        tokens: Tensor = self.norm(torch.stack(self.vectors(c, values), 1))
        return tokens
