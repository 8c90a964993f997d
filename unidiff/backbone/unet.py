"""The U-Net of Ho et al. (2020), for signals, images, volumes and video."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.axes import CONVOLUTIONS, unfold_patches, unfold_time, upsample
from unidiff.backbone.context import AttendingBackbone, Entry
from unidiff.backbone.contracting import ContractingPath, UNetControl
from unidiff.backbone.layers import apply_layer, group_norm, zeroed
from unidiff.backbone.unet_layers import UNetLayers
from unidiff.condition.base import Condition
from unidiff.condition.image import Control

__all__ = ["UNet"]


class UNet(ContractingPath, AttendingBackbone):
    """Residual blocks at several resolutions, joined by skip connections (Ho et al. 2020, appendix B).

    Each level runs at half the resolution of the previous one. The contracting path has `blocks` residual blocks per
    level, the expanding path `blocks + 1`, each with one skip connection. The output starts at exactly 0.

    Convolutions, norms and resampling act on as many axes as the shape has behind its channels.

    Args:
        shape: Shape of one sample: a signal (C, L), an image (C, H, W), a volume or a video (C, D, H, W). The sizes may
            differ.
        width: Channels at the first level, and size of the sinusoidal noise embedding; even.
        multipliers: Channels of each level, in units of `width`; one entry for each resolution, the finest first.
        blocks: Residual blocks per level of the contracting path.
        attention: Resolutions at which each residual block is followed by self-attention: the longest side of the
            feature map, counted after the patches are folded. Unless it is (), the middle of the network attends too.
        heads: Attention heads; must divide the channels wherever there is attention. None with `head_channels`.
        dropout: Probability of dropping an activation inside a residual block.
        patch: Fold patches of `patch` x `patch` pixels (intervals, cubes) into channels at the input, and unfold them
            at the output: the same network on a smaller map.
        image: Channels of a conditioning image of the same height and width, concatenated to the noisy image at the
            input (Saharia et al. 2022, Palette); None is a network without. In a recipe it follows from `conditioning`.
        groups: Groups of every group norm, a divisor of all channels; None is 32 or fewer, as the channels allow.
        scale_shift: Whether the noise embedding scales and shifts the normalized features of a residual block instead
            of being added to them (Nichol & Dhariwal 2021, appendix A; Dhariwal & Nichol 2021, section 3.1).
        residual_resampling: Whether a residual block halves and doubles the resolution, by the mean of 2 x 2 pixels and
            by repeating them, instead of a convolution (Song et al. 2021, appendix H; Dhariwal & Nichol 2021, section
            3).
        head_channels: Channels of each attention head, whose number then grows with the channels (64 in Dhariwal &
            Nichol 2021, section 3); needs `heads` = None.
        middle_attention: Whether the middle of the network has attention; None is the default described at `attention`.
        axial: Whether attention is along one axis at a time, the last axis first, instead of between all positions
            (Ho et al. 2019, Axial Attention).
        factorized: For videos (C, D, H, W): an image network on each frame, whose residual blocks are each followed by
            attention between the frames (`FrameAttention`). A video of one frame, or one that stands still, is treated
            exactly as an image by the same weights; the names of these are those of the image network.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (),
        heads: int | None = 4,
        dropout: float = 0.0,
        patch: int = 1,
        classes: int | None = None,
        image: int | None = None,
        groups: int | None = None,
        scale_shift: bool = False,
        residual_resampling: bool = False,
        head_channels: int | None = None,
        middle_attention: bool | None = None,
        learned_variance: bool = False,
        conditions: tuple[Condition, ...] = (),
        axial: bool = False,
        factorized: bool = False,
    ) -> None:
        layers = UNetLayers(
            tuple(shape) if isinstance(shape, list) else shape,
            width,
            multipliers,
            blocks,
            attention,
            heads,
            dropout,
            patch,
            groups,
            scale_shift,
            residual_resampling,
            head_channels,
            middle_attention,
            axial,
            factorized,
        )
        super().__init__(shape, classes, image, learned_variance, conditions)
        self.patch = patch
        skips = self._build_contracting(layers, self.inputs, self.conditions)
        self._require_entries(self.embedding.added, joins=True, context=self.context)
        h, rank, crossed = skips[-1], layers.rank, self.context is not None

        self.up, self.refine = nn.ModuleList(), nn.ModuleList()
        for level, (size, out) in enumerate(zip(reversed(layers.sizes), reversed(layers.channels))):
            if level > 0:
                self.refine.append(layers.resampling(h, upsample, nn.Upsample(scale_factor=2)))
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(layers.stage(h + skips.pop(), out, size in attention, crossed))
                h = out
            self.up.append(stages)

        self.norm = group_norm(h, groups)
        self.head = zeroed(CONVOLUTIONS[rank](h, self.outputs * patch**rank, 3, padding=1))
        # Made last, so that the other weights are those of the image network from the same seed.
        self.temporal = layers.temporal(expanding=True)

    @property
    def deepest(self) -> int:  # type: ignore[override]
        """See `Backbone.evaluate`: the number of stages of the expanding path."""
        return sum(map(len, self.up))  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        return self.evaluate(x, c, 1, **cond)[0]

    def evaluate(
        self, x: Tensor, c: Tensor, depth: int, features: Tensor | None = None, **cond: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.evaluate`: near are the last stages of the expanding path, and those whose maps they take."""
        entry = self._entered(x, c, cond)
        skips = self._contracted(entry, None if features is None else depth)
        h = self._middle(skips[-1], entry) if features is None else skips[-1]
        return self._expanded(h, skips, entry, depth, features)

    def with_features(self, x: Tensor, c: Tensor, features: Sequence[Tensor], **cond: Tensor) -> Tensor:
        """See `Backbone.with_features`: a feature for each map with a skip connection, and one for the middle."""
        entry = self._entered(x, c, cond)
        skips = self._contracted(entry)
        h = self._middle(skips[-1], entry) + features[-1]
        return self._expanded(h, [skip + own for skip, own in zip(skips, features)], entry, 1, None)[0]

    def control_branch(self, condition: Control) -> UNetControl:
        """See `Backbone.control_branch`: a copy of the contracting path."""
        return UNetControl(self.layers, self.conditions, self.inputs, condition)

    def _expanded(
        self, h: Tensor, skips: list[Tensor], entry: Entry, depth: int, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The output from the map behind the middle and those with a skip connection; see `evaluate`."""
        number, left = len(self.temporal) - self.deepest, self.deepest  # stages of the expanding path to come
        for level, stages in enumerate(self.up):
            if level > 0 and (features is None or left < depth):
                h = apply_layer(self.refine[level - 1], h, entry.e)
            for stage in stages:  # type: ignore[attr-defined]
                if left == depth:
                    h = features = h if features is None else features
                if features is None or left <= depth:
                    h = self._through(stage, number, torch.cat([h, skips.pop()], dim=1), entry)
                number, left = number + 1, left - 1
        out = unfold_patches(self.head(F.silu(self.norm(h))), self.patch)
        return unfold_time(out, entry.samples) if self.factorized else out, h if features is None else features
