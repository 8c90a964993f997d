"""The U-Net of Ho et al. (2020), for signals, images, volumes and video."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.backbone.axes import (
    CONVOLUTIONS,
    POOLS,
    downsample,
    fold_patches,
    name_samples,
    require_shape_of_rank,
    unfold_patches,
    unfold_time,
    upsample,
)
from unidiff.backbone.base import MOST_BLOCKS, WIDEST, require_size
from unidiff.backbone.context import Attended, AttendingBackbone, CrossAttention, context_of
from unidiff.backbone.layers import (
    FrameAttention,
    NoiseEmbedding,
    ResidualBlock,
    SelfAttention,
    apply_layer,
    axial_attention,
    group_norm,
    zeroed,
)
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, is_whole, require

__all__ = ["UNet", "check_unet"]


class UNet(AttendingBackbone):
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
        for name, value in {"axial": axial, "factorized": factorized}.items():
            require(isinstance(value, bool), name, value, "true or false")
        sides = check_unet(shape, width, multipliers, blocks, dropout, patch, factorized)
        rank = len(sides)
        sizes = [max(sides) // patch // 2**level for level in range(len(multipliers))]  # longest sides of the maps
        several = isinstance(attention, (tuple, list)) and all(map(is_whole, attention))
        require(several, "attention", attention, "a list of resolutions, integers >= 1, or () for none")
        if absent := [size for size in attention if size not in sizes]:
            allowed = f"among the resolutions of this network ({', '.join(map(str, sizes))})"
            raise ParameterError("attention", f"must be {allowed}, got {', '.join(map(str, absent))}")
        if head_channels is None:
            require_size("heads", heads, WIDEST)
        else:
            require_size("head_channels", head_channels, WIDEST)
            if heads is not None:
                problem = f"cannot be combined with heads = {heads}. Set heads to None (null in a recipe)."
                raise ParameterError("head_channels", problem)
        if groups is not None:
            require_size("groups", groups, WIDEST)
        for name, value in {"scale_shift": scale_shift, "residual_resampling": residual_resampling}.items():
            require(isinstance(value, bool), name, value, "true or false")
        super().__init__(shape, classes, image, learned_variance, conditions)
        self.patch, self.factorized = patch, factorized
        channels = [width * m for m in multipliers]
        features = 4 * width
        central = bool(attention) if middle_attention is None else middle_attention
        self.context = context_of(self.conditions, features)
        if self.context is not None and not (attention or central):
            names = " and ".join(self.context.attended)
            problem = f"must name a resolution at which the network attends to {names}, got none"
            raise ParameterError("attention", problem)

        def stage(inputs: int, outputs: int, attend: bool) -> Stage:
            residual = ResidualBlock(inputs, outputs, features, dropout, groups, scale_shift, rank=rank)
            widths.append(outputs)
            if not attend:
                return Stage(residual, None)
            number = _number_of_heads(outputs, heads, head_channels)
            joint, per_axis = (outputs, number, groups), (outputs, number, groups, rank)
            itself = axial_attention(*per_axis) if axial else SelfAttention(*joint)
            cross = None if self.context is None else CrossAttention(outputs, features, number)
            return Stage(residual, itself, cross)

        def resampling(channels: int, plain: Callable[..., nn.Module], resample: nn.Module) -> nn.Module:
            if not residual_resampling:
                return plain(channels, rank)
            return ResidualBlock(channels, channels, features, dropout, groups, scale_shift, resample, rank)

        widths: list[int] = []  # channels behind each stage

        self.embedding = NoiseEmbedding(width, features, self.conditions)
        self._require_entries(self.embedding.added, joins=True, context=self.context)
        self.stem = CONVOLUTIONS[rank](self.inputs * patch**rank, width, 3, padding=1)

        self.down, self.coarsen = nn.ModuleList(), nn.ModuleList()
        h, skips = width, [width]  # channels of the current map, and of every map with a skip connection
        for level, (size, out) in enumerate(zip(sizes, channels)):
            if level > 0:
                self.coarsen.append(resampling(h, downsample, POOLS[rank](2)))
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
                self.refine.append(resampling(h, upsample, nn.Upsample(scale_factor=2)))
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(h + skips.pop(), out, size in attention))
                h = out
            self.up.append(stages)

        self.norm = group_norm(h, groups)
        self.head = zeroed(CONVOLUTIONS[rank](h, self.outputs * patch**rank, 3, padding=1))
        # Made last, so that the other weights are those of the image network from the same seed.
        attentions = (FrameAttention(size, _number_of_heads(size, heads, head_channels)) for size in widths)
        self.temporal = nn.ModuleList(attentions if factorized else ())

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
        h, e, context = self._entered(x, c, cond)
        temporal = iter(self.temporal)

        def through(stage: nn.Module, h: Tensor) -> Tensor:
            h = stage(h, e, context)
            if self.factorized:
                tokens = next(temporal)(h.flatten(2).transpose(1, 2).unflatten(0, (len(x), -1)))
                h = tokens.flatten(0, 1).transpose(1, 2).unflatten(2, h.shape[2:])
            return h

        h = self.stem(fold_patches(h, self.patch))
        skips = [h]
        for level, stages in enumerate(self.down):
            if level > 0 and (features is None or len(skips) < depth):
                h = apply_layer(self.coarsen[level - 1], h, e)
                skips.append(h)
            for stage in stages:  # type: ignore[attr-defined]
                if features is None or len(skips) < depth:
                    h = through(stage, h)
                    skips.append(h)
        for stage in self.middle if features is None else ():
            h = through(stage, h)
        if features is not None:
            temporal = iter(self.temporal[-depth:])
        left = self.deepest  # stages of the expanding path to come
        for level, stages in enumerate(self.up):
            if level > 0 and (features is None or left < depth):
                h = apply_layer(self.refine[level - 1], h, e)
            for stage in stages:  # type: ignore[attr-defined]
                if left == depth:
                    h = features = h if features is None else features
                if features is None or left <= depth:
                    h = through(stage, torch.cat([h, skips.pop()], dim=1))
                left -= 1
        out = unfold_patches(self.head(F.silu(self.norm(h))), self.patch)
        return unfold_time(out, len(x)) if self.factorized else out, h if features is None else features


class Stage(nn.Module):
    """A residual block and, at the resolutions that have it, attention: of pixels to one another and to conditions."""

    def __init__(
        self, residual: ResidualBlock, attention: nn.Module | None, cross: CrossAttention | None = None
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = nn.Identity() if attention is None else attention
        self.cross = cross

    def forward(self, x: Tensor, e: Tensor, context: Attended | None = None) -> Tensor:
        """Map x, (B, inputs, *sizes), and the noise embedding e, (B, features), to (B, outputs, *sizes)."""
        h: Tensor = self.attention(self.residual(x, e))
        if self.cross is None or context is None:
            return h
        pixels = self.cross(h.flatten(2).transpose(1, 2), context)
        return pixels.transpose(1, 2).reshape(h.shape)


def check_unet(
    shape: tuple[int, ...],
    width: int,
    multipliers: tuple[int, ...],
    blocks: int,
    dropout: float,
    patch: int,
    factorized: bool = False,
) -> tuple[int, ...]:
    """The sizes of the axes on which convolutions act: all behind the channels, of frames in a factorized network.

    Raises:
        ParameterError: If an argument that `UNet` and `UNetEncoder` share is out of range.
    """
    require_shape_of_rank(shape, (3,) if factorized else (1, 2, 3))
    require(is_whole(width) and width % 2 == 0, "width", width, "an even number >= 2")
    several = isinstance(multipliers, (tuple, list)) and len(multipliers) > 0 and all(map(is_whole, multipliers))
    require(several, "multipliers", multipliers, "one or more integers >= 1")
    widest = width * max(multipliers)
    require(widest <= WIDEST, "width", width, f"such that no level has more than {WIDEST} channels")
    require_size("blocks", blocks, MOST_BLOCKS)
    require(isinstance(dropout, (int, float)) and 0 <= dropout < 1, "dropout", dropout, "a number in [0, 1)")
    require(patch in (1, 2, 4), "patch", patch, "1, 2 or 4")

    sides = tuple(shape[2:] if factorized else shape[1:])
    halvings = len(multipliers) - 1
    unit = patch * 2**halvings
    samples = name_samples(sides)
    if any(side % patch for side in sides):
        problem = f"{samples} cannot be cut into patches of {'x'.join([str(patch)] * len(sides))}"
        raise ParameterError("patch", f"{problem}; use a size divisible by {unit}, or a smaller patch.")
    if any(side % unit for side in sides):
        problem = f"{samples} cannot be halved {halvings} times (patch {patch})"
        raise ParameterError("multipliers", f"{problem}; use a size divisible by {unit}, or fewer multipliers.")
    return sides


def _number_of_heads(channels: int, heads: int | None, head_channels: int | None) -> int:
    """Attention heads at so many channels; a ParameterError if they do not divide them."""
    if heads is not None and channels % heads:
        raise ParameterError("heads", f"must divide the {channels} channels of a level, got {heads}")
    if head_channels is not None and channels % head_channels:
        problem = f"must divide the {channels} channels of a level, got {head_channels}"
        raise ParameterError("head_channels", problem)
    return heads or channels // (head_channels or 1)
