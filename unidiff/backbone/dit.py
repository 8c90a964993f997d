"""The diffusion transformer of Peebles & Xie (2023): self-attention over patches, with adaptive layer norm."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from unidiff.backbone.attention import Attention, SoftmaxAttention
from unidiff.backbone.axes import unfold_time
from unidiff.backbone.block_design import AdaLNZero, BlockDesign
from unidiff.backbone.dit_blocks import BlockSettings
from unidiff.backbone.layers import FrameAttention
from unidiff.backbone.patches import PatchBackbone
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, require

__all__ = ["SIZES", "DiT"]

# Width, depth and heads: Peebles & Xie 2023, table 1.
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


class DiT(PatchBackbone):
    """A transformer over the patches of a sample (Peebles & Xie 2023). The output starts at exactly 0.

    Every patch is mapped linearly to a token, a fixed position embedding is added, and `depth` blocks follow. Noise
    condition and class determine the scale and shift of their norms and the gates of their branches (adaLN-zero, their
    section 3.2), or enter as another `block` says. A last norm and a linear layer map tokens to patches. It works on
    pixels and on latents.

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
        block: The design of the blocks: how the noise level and the conditions that are vectors enter.
        attention: How the patches attend to one another.
    """

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
        block: BlockDesign = AdaLNZero(),  # noqa: B008 (frozen)
        attention: Attention = SoftmaxAttention(),  # noqa: B008
    ) -> None:
        require(isinstance(size, str) and size in SIZES, "size", size, "S, B, L or XL")
        sizes = (preset if value is None else value for preset, value in zip(SIZES[size], (width, depth, heads)))
        width, depth, heads = sizes
        for name, flag in {"axial": axial, "factorized": factorized}.items():
            require(isinstance(flag, bool), name, flag, "true or false")
        if axial and block.appends:
            problem = f"{block!r} appends tokens, which are on no axis of the patches; use another block"
            raise ParameterError("axial", problem)
        enters = (classes, learned_variance, conditions, factorized, block.embedding)
        super().__init__(shape, patch, width, depth, heads, *enters)
        self.design, self.attention = block, attention
        rank, crossed = len(self.grid), self.context is not None
        along = [rank - 1 - i % rank if axial else None for i in range(depth)]
        settings = [BlockSettings(width, heads, attention, axis, crossed) for axis in along]
        self.blocks = nn.ModuleList([block.block(own) for own in settings])
        self.shared = block.shared(width)
        self._last(width, block.adaptive)
        shared = [] if self.shared is None else [self.shared]
        self._initialize([*shared, *(layer for own in self.blocks for layer in own.endings())])  # type: ignore[operator]
        # Made last, so that the other weights are those of the image network from the same seed.
        self.temporal = nn.ModuleList([FrameAttention(width, heads) for _ in range(depth if factorized else 0)])

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
        entry = self._entered(x, c, cond)
        patches, e = self._tokens(entry), entry.e
        h = self.design.entered(patches, e)
        seen = e if self.shared is None else self.shared(e)
        last = len(self.blocks) - depth
        before = kept = h
        for i, block in enumerate(self.blocks):
            if i == depth:
                before = h
            if i == last:
                h = h if features is None else before + features
                kept = h - before if features is None else features
            if features is None or not depth <= i < last:
                h = block(h, seen, self.grid, entry.context)
                if self.factorized:
                    h = self.temporal[i](h.unflatten(0, (entry.samples, -1))).flatten(0, 1)
        out = self._sample(h[:, : patches.shape[1]], e)
        return unfold_time(out, entry.samples) if self.factorized else out, kept
