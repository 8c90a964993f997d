"""The U-Net of Ho et al. (2020): the image network of the library."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.base import Backbone
from unidiff.backbone.context import Attended, CrossAttention, context_of
from unidiff.backbone.layers import (
    Downsample,
    NoiseEmbedding,
    ResidualBlock,
    SelfAttention,
    Upsample,
    apply_layer,
    group_norm,
    zeroed,
)
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require, require_whole

__all__ = ["UNet", "check_unet"]


class UNet(Backbone):
    """Residual blocks at several resolutions, joined by skip connections (Ho et al. 2020, appendix B).

    Each level runs at half the resolution of the previous one. The contracting path has `blocks` residual blocks per
    level, the expanding path `blocks + 1`, each with one skip connection. The output starts at exactly 0.

    Args:
        shape: (C, H, W) of one image. Not necessarily square.
        width: Channels at the first level, and size of the sinusoidal noise embedding; even.
        multipliers: Channels of each level, in units of `width`; one entry for each resolution, the finest first.
        blocks: Residual blocks per level of the contracting path.
        attention: Resolutions at which each residual block is followed by self-attention: the longer side of the
            feature map, counted after the patches are folded. Unless it is (), the middle of the network attends too.
        heads: Attention heads; must divide the channels wherever there is attention. None with `head_channels`.
        dropout: Probability of dropping an activation inside a residual block.
        patch: Fold patches of `patch` x `patch` pixels into channels at the input, and unfold them at the output: the
            same network on a smaller map.
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
    ) -> None:
        check_unet(shape, width, multipliers, blocks, dropout, patch)
        sizes = [max(shape[1:]) // patch // 2**level for level in range(len(multipliers))]  # longer sides of the maps
        several = isinstance(attention, (tuple, list)) and all(map(is_whole, attention))
        require(several, "attention", attention, "a list of resolutions, integers >= 1, or () for none")
        if absent := [size for size in attention if size not in sizes]:
            allowed = f"among the resolutions of this network ({', '.join(map(str, sizes))})"
            raise ParameterError("attention", f"must be {allowed}, got {', '.join(map(str, absent))}")
        if head_channels is None:
            require_whole("heads", heads)
        else:
            require_whole("head_channels", head_channels)
            if heads is not None:
                problem = f"cannot be combined with heads = {heads}. Set heads to None (null in a recipe)."
                raise ParameterError("head_channels", problem)
        if groups is not None:
            require_whole("groups", groups)
        for name, value in {"scale_shift": scale_shift, "residual_resampling": residual_resampling}.items():
            require(isinstance(value, bool), name, value, "true or false")
        super().__init__(shape, classes, image, learned_variance, conditions)
        self.patch = patch
        channels = [width * m for m in multipliers]
        features = 4 * width
        central = bool(attention) if middle_attention is None else middle_attention
        self.context = context_of(self.conditions, features)
        if self.context is not None and not (attention or central):
            names = " and ".join(self.context.attended)
            problem = f"must name a resolution at which the network attends to {names}, got none"
            raise ParameterError("attention", problem)

        def stage(inputs: int, outputs: int, attend: bool) -> Stage:
            residual = ResidualBlock(inputs, outputs, features, dropout, groups, scale_shift)
            if not attend:
                return Stage(residual, None)
            number = _number_of_heads(outputs, heads, head_channels)
            itself = SelfAttention(outputs, number, groups)
            cross = None if self.context is None else CrossAttention(outputs, features, number)
            return Stage(residual, itself, cross)

        def resampling(channels: int, plain: type[Downsample | Upsample], resample: nn.Module) -> nn.Module:
            if not residual_resampling:
                return plain(channels)
            return ResidualBlock(channels, channels, features, dropout, groups, scale_shift, resample)

        self.embedding = NoiseEmbedding(width, features, self.conditions)
        self._require_entries(self.embedding.added, joins=True, context=self.context)
        self.stem = nn.Conv2d(self.inputs * patch**2, width, 3, padding=1)

        self.down, self.coarsen = nn.ModuleList(), nn.ModuleList()
        h, skips = width, [width]  # channels of the current map, and of every map with a skip connection
        for level, (size, out) in enumerate(zip(sizes, channels)):
            if level > 0:
                self.coarsen.append(resampling(h, Downsample, nn.AvgPool2d(2)))
                skips.append(h)
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(stage(h, out, size in attention))
                skips.append(h := out)
            self.down.append(stages)

        self.middle = nn.ModuleList([stage(h, h, central), stage(h, h, False)])

        self.up, self.refine = nn.ModuleList(), nn.ModuleList()
        for level, (size, out) in enumerate(zip(reversed(sizes), reversed(channels))):
            if level > 0:
                self.refine.append(resampling(h, Upsample, nn.Upsample(scale_factor=2)))
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(h + skips.pop(), out, size in attention))
                h = out
            self.up.append(stages)

        self.norm = group_norm(h, groups)
        self.head = zeroed(nn.Conv2d(h, self.outputs * patch**2, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        values = self._values(cond, x)
        e, context = self.embedding(c, values), None if self.context is None else self.context(values)
        h = self.stem(F.pixel_unshuffle(self._joined(x, values), self.patch))
        skips = [h]
        for level, stages in enumerate(self.down):
            if level > 0:
                h = apply_layer(self.coarsen[level - 1], h, e)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, e, context)
                skips.append(h)
        for stage in self.middle:
            h = stage(h, e, context)
        for level, stages in enumerate(self.up):
            if level > 0:
                h = apply_layer(self.refine[level - 1], h, e)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), e, context)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


class Stage(nn.Module):
    """A residual block and, at the resolutions that have it, attention: of pixels to one another and to conditions."""

    def __init__(
        self, residual: ResidualBlock, attention: SelfAttention | None, cross: CrossAttention | None = None
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = nn.Identity() if attention is None else attention
        self.cross = cross

    def forward(self, x: Tensor, e: Tensor, context: Attended | None = None) -> Tensor:
        """Map x, (B, inputs, H, W), and the noise embedding e, (B, features), to (B, outputs, H, W)."""
        h: Tensor = self.attention(self.residual(x, e))
        if self.cross is None or context is None:
            return h
        pixels = self.cross(h.flatten(2).transpose(1, 2), context)
        return pixels.transpose(1, 2).reshape(h.shape)


def check_unet(
    shape: tuple[int, ...], width: int, multipliers: tuple[int, ...], blocks: int, dropout: float, patch: int
) -> None:
    """Raise a ParameterError if an argument that `UNet` and `UNetEncoder` share is out of range."""
    triple = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(map(is_whole, shape))
    require(triple, "shape", shape, "(channels, height, width), three integers >= 1")
    require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
    several = isinstance(multipliers, (tuple, list)) and len(multipliers) > 0 and all(map(is_whole, multipliers))
    require(several, "multipliers", multipliers, "one or more integers >= 1")
    require_whole("blocks", blocks)
    require(isinstance(dropout, (int, float)) and 0 <= dropout < 1, "dropout", dropout, "a number in [0, 1)")
    require(patch in (1, 2, 4), "patch", patch, "1, 2 or 4")

    _, height, breadth = shape
    halvings = len(multipliers) - 1
    unit = patch * 2**halvings
    if height % patch or breadth % patch:
        problem = f"images of {height}x{breadth} pixels cannot be cut into patches of {patch}x{patch}"
        raise ParameterError("patch", f"{problem}; use a size divisible by {unit}, or a smaller patch.")
    if height % unit or breadth % unit:
        problem = f"images of {height}x{breadth} pixels cannot be halved {halvings} times (patch {patch})"
        raise ParameterError("multipliers", f"{problem}; use a size divisible by {unit}, or fewer multipliers.")


def _number_of_heads(channels: int, heads: int | None, head_channels: int | None) -> int:
    """Attention heads at so many channels; a ParameterError if they do not divide them."""
    if heads is not None and channels % heads:
        raise ParameterError("heads", f"must divide the {channels} channels of a level, got {heads}")
    if head_channels is not None and channels % head_channels:
        problem = f"must divide the {channels} channels of a level, got {head_channels}"
        raise ParameterError("head_channels", problem)
    return heads or channels // (head_channels or 1)
