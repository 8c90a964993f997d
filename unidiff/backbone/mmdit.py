"""MM-DiT of Stable Diffusion 3 (Esser et al. 2024): patches and words in one attention, with weights of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.context import Attended
from unidiff.backbone.layers import attend
from unidiff.backbone.patches import PatchBackbone
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError

__all__ = ["JointBlock", "MMDiT"]


class MMDiT(PatchBackbone):
    """A transformer over patches and words together (Esser et al. 2024, section 4). The output starts at exactly 0.

    Patches and the tokens of captions are two streams. In each of `depth` blocks every stream has its own norms,
    linear maps and perceptron, with scales, shifts and gates from the noise embedding, and one attention runs over the
    tokens of both. The mean of the caption's tokens is added to the noise embedding, in place of the pooled vector of
    a text encoder. After the last block the patches alone are mapped to the output.

    The tokens are learned vectors of words and places, or a linear map of an `Embedding((L, D))`. Other conditions
    enter as in a `DiT`. Queries and keys are not normalized (the original does so at high resolution only).

    Args:
        shape: Shape of one sample: a signal (C, L), an image (C, H, W) or a volume (C, D, H, W). The sizes may differ.
        patch: Side of a patch in pixels; must divide the size of every axis.
        width: Size of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `width`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int = 2,
        width: int = 384,
        depth: int = 6,
        heads: int = 6,
        classes: int | None = None,
        learned_variance: bool = False,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        super().__init__(shape, patch, width, depth, heads, classes, learned_variance, conditions)
        if self.context is None:
            problem = "MMDiT needs captions, or another condition that is a sequence, such as Tokens; without, use DiT"
            raise ParameterError("conditions", problem)
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList([JointBlock(width, heads, last=i == depth - 1) for i in range(depth)])
        self._last(width)
        self._initialize([layer for block in self.blocks for layer in block.endings()])  # type: ignore[operator]

    def _embedded(self, c: Tensor, values: Mapping[str, Tensor], context: Attended | None) -> Tensor:
        """The noise embedding with the mean of the tokens that exist."""
        assert context is not None
        first, *others = self.embedding.vectors(c, values)
        return F.silu(sum(others, first) + self.pooled(context.mean()))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        entry = self._entered(x, c, cond)
        h, text = self._tokens(entry), entry.context
        for block in self.blocks:
            h, text = block(h, text, entry.e)
        return self._sample(h, entry.e)


class JointBlock(nn.Module):
    """One attention over two streams of tokens, and a perceptron for each (Esser et al. 2024, figure 2b).

    With (b1, s1, g1, b2, s2, g2) = W e + b, and W, b and all other weights of each stream its own,

        h += g1 project(softmax(q [k, k']^T / sqrt(d)) [v, v']),    (q, k, v) = linear((1 + s1) LN(h) + b1),
        h += g2 mlp((1 + s2) LN(h) + b2),

    where k' and v' are those of the other stream. W and b start at zero: at first the block is the identity.

    Args:
        width: Size of a token.
        heads: Number of heads, a divisor of `width`.
        last: Whether no block follows: the stream of words then stops after giving its keys and values.
    """

    def __init__(self, width: int, heads: int, last: bool = False) -> None:
        super().__init__()
        self.image, self.text = _Stream(width, heads), _Stream(width, heads, last)

    def endings(self) -> list[nn.Module]:
        """The layers that start at zero."""
        return [self.image.modulation, self.text.modulation]

    def forward(self, h: Tensor, text: Attended, e: Tensor) -> tuple[Tensor, Attended]:
        """Map tokens of patches, (B, N, width), and words to the same shapes; e is the noise embedding, (B, width)."""
        count = h.shape[1]
        own, other = self.image.modulations(e), self.text.modulations(e)
        q, k, v = (
            torch.cat(pair, 2) for pair in zip(self.image.entering(h, own), self.text.entering(text.tokens, other))
        )
        exist = torch.cat([text.exist.new_ones(len(h), count), text.exist], 1)
        averages = attend(q, k, v, exist[:, None, None, :]).transpose(1, 2).flatten(2)
        h = self.image.leaving(h, averages[:, :count], own)
        return h, text._replace(tokens=self.text.leaving(text.tokens, averages[:, count:], other))


class _Stream(nn.Module):
    """The layers of a block for one kind of tokens; if it ends, those before the attention alone."""

    def __init__(self, width: int, heads: int, ends: bool = False) -> None:
        super().__init__()
        self.heads, self.ends = heads, ends
        self.modulation = nn.Linear(width, (2 if ends else 6) * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = None if ends else nn.Linear(width, width)
        self.mlp = (
            None if ends else nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        )

    def modulations(self, e: Tensor) -> tuple[Tensor, ...]:
        """Shift and scale before the attention; gate, shift, scale and gate after it, unless the stream ends."""
        return self.modulation(e)[:, None].chunk(2 if self.ends else 6, dim=2)

    def entering(self, h: Tensor, modulations: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Queries, keys and values, (B, heads, N, d)."""
        shift, scale, *_ = modulations
        qkv = self.qkv(self.norm(h) * (1 + scale) + shift)
        return qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def leaving(self, h: Tensor, averages: Tensor, modulations: tuple[Tensor, ...]) -> Tensor:
        """The tokens behind the block; a stream that ends stays as it is."""
        if self.project is None or self.mlp is None:
            return h
        _, _, gate, shift, scale, last_gate = modulations
        h = h + gate * self.project(averages)
        mapped: Tensor = h + last_gate * self.mlp(self.norm(h) * (1 + scale) + shift)
        return mapped
