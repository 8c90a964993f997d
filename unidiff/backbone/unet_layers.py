"""How the layers of a U-Net are chosen: its arguments, checked, and the stages that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from unidiff.backbone.axes import name_samples, require_shape_of_rank
from unidiff.backbone.base import MOST_BLOCKS, WIDEST, require_size
from unidiff.backbone.context import Attended, CrossAttention
from unidiff.backbone.layers import FrameAttention, ResidualBlock, SelfAttention, axial_attention
from unidiff.errors import ParameterError, is_whole, require

__all__ = ["Stage", "UNetLayers", "check_unet"]


@dataclass(frozen=True)
class UNetLayers:
    """The layers of a U-Net, by the arguments of `UNet`, which describes them.

    Raises:
        ParameterError: If an argument is out of range.
    """

    shape: tuple[int, ...]
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int | None
    dropout: float
    patch: int
    groups: int | None
    scale_shift: bool
    residual_resampling: bool
    head_channels: int | None
    middle_attention: bool | None
    axial: bool
    factorized: bool

    def __post_init__(self) -> None:
        for name in ("axial", "factorized"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        shared = (self.shape, self.width, self.multipliers, self.blocks, self.dropout, self.patch)
        check_unet(*shared, self.factorized)
        several = isinstance(self.attention, (tuple, list)) and all(map(is_whole, self.attention))
        require(several, "attention", self.attention, "a list of resolutions, integers >= 1, or () for none")
        if absent := [size for size in self.attention if size not in self.sizes]:
            allowed = f"among the resolutions of this network ({', '.join(map(str, self.sizes))})"
            raise ParameterError("attention", f"must be {allowed}, got {', '.join(map(str, absent))}")
        if self.head_channels is None:
            require_size("heads", self.heads, WIDEST)
        else:
            require_size("head_channels", self.head_channels, WIDEST)
            if self.heads is not None:
                problem = f"cannot be combined with heads = {self.heads}. Set heads to None (null in a recipe)."
                raise ParameterError("head_channels", problem)
        if self.groups is not None:
            require_size("groups", self.groups, WIDEST)
        for name in ("scale_shift", "residual_resampling"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")

    @property
    def rank(self) -> int:
        """Axes on which convolutions act."""
        return len(self.shape) - (2 if self.factorized else 1)

    @property
    def sizes(self) -> list[int]:
        """The longest side of the map at each level."""
        longest = max(self.shape[-self.rank :]) // self.patch
        return [longest // 2**level for level in range(len(self.multipliers))]

    @property
    def channels(self) -> list[int]:
        """Channels of each level."""
        return [self.width * multiplier for multiplier in self.multipliers]

    @property
    def features(self) -> int:
        """Size of the noise embedding."""
        return 4 * self.width

    @property
    def central(self) -> bool:
        """Whether the middle of the network has attention."""
        return bool(self.attention) if self.middle_attention is None else self.middle_attention

    def require_attention(self, names: Sequence[str]) -> None:
        """Raise a ParameterError if conditions are to be attended to, and there is no attention."""
        if not (self.attention or self.central):
            problem = f"must name a resolution at which the network attends to {' and '.join(names)}, got none"
            raise ParameterError("attention", problem)

    def stage(self, inputs: int, outputs: int, attend: bool, crossed: bool) -> Stage:
        """A residual block; with attention, to conditions too if it is `crossed`, where it is to `attend`."""
        residual = ResidualBlock(
            inputs, outputs, self.features, self.dropout, self.groups, self.scale_shift, rank=self.rank
        )
        if not attend:
            return Stage(residual, None)
        number = self._number_of_heads(outputs)
        joint, per_axis = (outputs, number, self.groups), (outputs, number, self.groups, self.rank)
        itself = axial_attention(*per_axis) if self.axial else SelfAttention(*joint)
        return Stage(residual, itself, CrossAttention(outputs, self.features, number) if crossed else None)

    def resampling(self, channels: int, plain: Callable[..., nn.Module], resample: nn.Module) -> nn.Module:
        """The layer `plain`, a convolution, or a residual block around `resample`."""
        if not self.residual_resampling:
            return plain(channels, self.rank)
        more = self.dropout, self.groups, self.scale_shift, resample, self.rank
        return ResidualBlock(channels, channels, self.features, *more)

    def temporal(self, expanding: bool) -> nn.ModuleList:
        """Attention between frames behind each stage of a factorized network; none of another one.

        Args:
            expanding: Whether the stages of the expanding path are among them.
        """
        widths = [out for out in self.channels for _ in range(self.blocks)] + [self.channels[-1]] * 2
        widths += [out for out in reversed(self.channels) for _ in range(self.blocks + 1)] if expanding else []
        attentions = (FrameAttention(size, self._number_of_heads(size)) for size in widths)
        return nn.ModuleList(attentions if self.factorized else ())

    def _number_of_heads(self, channels: int) -> int:
        """Attention heads at so many channels; a ParameterError if they do not divide them."""
        for name in ("heads", "head_channels"):
            if (size := getattr(self, name)) is not None and channels % size:
                raise ParameterError(name, f"must divide the {channels} channels of a level, got {size}")
        return self.heads or channels // (self.head_channels or 1)


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
        problem = f"{samples} cannot be halved {'once' if halvings == 1 else f'{halvings} times'} (patch {patch})"
        raise ParameterError("multipliers", f"{problem}; use a size divisible by {unit}, or fewer multipliers.")
    return sides
