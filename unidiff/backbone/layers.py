"""The building blocks of the backbones, for 1 to 3 axes: noise embedding, residual block, attention, resampling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional as F

from unidiff.backbone.axes import CONVOLUTIONS
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError

__all__ = [
    "FrameAttention",
    "NoiseEmbedding",
    "ResidualBlock",
    "SelfAttention",
    "add_layers",
    "apply_layer",
    "attend",
    "attend_written_out",
    "attention_weights",
    "axial_attention",
    "group_norm",
    "sinusoidal",
    "zeroed",
]

Layer = TypeVar("Layer", bound=nn.Module)


def sinusoidal(c: Tensor, dim: int, shift: int = 0) -> Tensor:
    """Embed numbers as sines and cosines of geometrically spaced frequencies.

    Vaswani et al. (2017, sec. 3.5), with all sines before all cosines as in the code of Ho et al. (2020). Computed in
    float32 or better whatever the autocast state: at c = 1000, bfloat16 would round the phase to a multiple of 4.

    Args:
        c: Numbers, (B,), of any real dtype.
        dim: Size of the embedding, even.
        shift: Subtracted from the number of frequencies: with 1 the last is 1/10000, as in the code of Ho et al. 2020.

    Returns:
        [sin(c w_i), cos(c w_i)] with w_i = exp(-ln(10000) i / (dim/2 - shift)), i = 0..dim/2-1; (B, dim).
    """
    c = c.to(torch.promote_types(c.dtype, torch.float32))
    half = dim // 2
    ladder = torch.arange(half, device=c.device, dtype=c.dtype)
    # At c = 1000 the last bit of a frequency matters, so each variant rounds as the existing networks do.
    ratio = -math.log(10_000)
    exponent = ladder * ratio / (half - shift) if shift else ladder * (ratio / half)
    phase = c[:, None] * exponent.exp()
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def zeroed(layer: Layer) -> Layer:
    """Set a layer's weights and bias to zero, so that the branch it ends starts as 0 (Ho et al. 2020, code)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int, groups: int | None = None) -> nn.GroupNorm:
    """Group normalization (Wu & He 2018); with None in 32 groups, as in Ho et al. (2020), or fewer.

    Fewer where 32 does not divide the channels or would leave fewer than four channels per group. With one channel per
    group, the norm would remove exactly the noise embedding that is added to a channel.

    Raises:
        ParameterError: If the groups do not divide the channels.
    """
    if groups is None:
        most = max(1, min(32, channels // 4))
        groups = max(g for g in range(1, most + 1) if channels % g == 0)
    if channels % groups:
        raise ParameterError("groups", f"must divide the {channels} channels of a level, got {groups}")
    return nn.GroupNorm(groups, channels)


class NoiseEmbedding(nn.Module):
    """The noise condition c as a vector: sinusoidal embedding, then a two-layer perceptron.

    Conditions that are vectors, such as labels, are added before the last nonlinearity (Dhariwal & Nichol 2021, section
    3; the null class is that of Ho & Salimans 2022).

    Args:
        width: Size of the sinusoidal embedding, even.
        features: Size of the result.
        conditions: The conditions of the network; those that are not vectors enter elsewhere.
        shift: See `sinusoidal`.
    """

    def __init__(self, width: int, features: int, conditions: Sequence[Condition] = (), shift: int = 0) -> None:
        super().__init__()
        self.width, self.shift = width, shift
        self.inner = nn.Linear(width, features)
        self.outer = nn.Linear(features, features)
        self.added = add_layers(self, {condition.name: condition.added(features) for condition in conditions})

    def forward(self, c: Tensor, values: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map c, (B,), and conditions to (B, features), the SiLU that every block needs already applied."""
        first, *others = self.vectors(c, values)
        return F.silu(sum(others, first))

    def vectors(self, c: Tensor, values: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The vectors that are added, (B, features) each: of the noise condition, and of each condition."""
        e = sinusoidal(c, self.width, self.shift)
        e = e.to(getattr(self.inner.weight, "dtype", e.dtype))  # that of a layer quantized to int8 is a method
        layers = self.added.items()
        return [self.outer(F.silu(self.inner(e))), *(getattr(self, own)((values or {})[name]) for name, own in layers)]


def add_layers(to: nn.Module, layers: Mapping[str, nn.Module | None]) -> dict[str, str]:
    """Register the layers of conditions; the attribute of each that has one, by the condition's name.

    That of `label` is `label`, as in the first release's checkpoints; another name might be that of a method.
    """
    named = {
        name: name if name == "label" else f"condition_{name}" for name, layer in layers.items() if layer is not None
    }
    for name, attribute in named.items():
        to.add_module(attribute, layers[name])
    return named


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice around the noise embedding, with a shortcut (Ho et al. 2020, appendix B).

    The last convolution starts at zero: at first the block is its shortcut.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        features: Size of the noise embedding.
        dropout: Probability of dropping an activation before the last convolution.
        groups: Groups of the norms; see `group_norm`.
        scale_shift: Whether the embedding gives the second norm's scale and shift, (1 + scale) norm(h) + shift,
            instead of being added before it (Nichol & Dhariwal 2021, appendix A; AdaGN of Dhariwal & Nichol 2021).
        resample: Layer without weights that changes the sizes of the axes, on branch and shortcut, before the first
            convolution; None keeps them (Brock et al. 2019, appendix B; Song et al. 2021, appendix H).
        rank: Axes behind the channels: 1 for signals, 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: int,
        dropout: float,
        groups: int | None = None,
        scale_shift: bool = False,
        resample: nn.Module | None = None,
        rank: int = 2,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        convolution = CONVOLUTIONS[rank]
        self.norm1 = group_norm(inputs, groups)
        self.resample = nn.Identity() if resample is None else resample
        self.conv1 = convolution(inputs, outputs, 3, padding=1)
        self.embed = nn.Linear(features, (2 if scale_shift else 1) * outputs)
        self.norm2 = group_norm(outputs, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(convolution(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map x, (B, inputs, *sizes), and the embedding e, (B, features), to (B, outputs, *new sizes)."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        e = self.embed(e)
        e = e.reshape(*e.shape, *[1] * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.shortcut(self.resample(x)) + h


def attention_weights(q: Tensor, k: Tensor, exist: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)), (B, heads, N, keys); see `attend`."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores if exist is None else scores.masked_fill(~exist, -math.inf)).softmax(-1)


def attend_written_out(q: Tensor, k: Tensor, v: Tensor, exist: Tensor | None = None) -> Tensor:
    """As `attend`, by three operations.

    torch's fused attention has no forward-mode derivative on CPUs, and its backward there is eight times slower than
    this on the few hundred pixels that a U-Net attends to (measured in bf16).
    """
    return attention_weights(q, k, exist) @ v


class SelfAttention(nn.Module):
    """Every position attends to every position, h + proj(softmax(Q K^T / sqrt(d)) V) (Vaswani et al. 2017, eq. 1).

    The projection starts at zero: at first the block is the identity.

    Args:
        channels: Channels of input and output.
        heads: Number of heads, a divisor of `channels`; d = channels / heads.
        groups: Groups of the norm; see `group_norm`.
        along: The axis, from 0, along which positions attend to one another; None for all positions jointly.
    """

    attend = staticmethod(attend_written_out)  # which `backbone.shared_attention` replaces
    to_context = False

    def __init__(self, channels: int, heads: int, groups: int | None = None, along: int | None = None) -> None:
        super().__init__()
        self.heads, self.along = heads, along
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *sizes) to the same shape."""
        h = self.norm(x)
        if self.along is None:
            return x + self._attended(h.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        h = h.movedim((1, 2 + self.along), (-1, -2))  # lines of positions, each attending within itself
        lines = self._attended(h.flatten(0, -3)).unflatten(0, h.shape[:-2])
        return x + lines.movedim((-1, -2), (1, 2 + self.along))

    def _attended(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mapped: Tensor = self.project(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return mapped


def axial_attention(channels: int, heads: int, groups: int | None, rank: int) -> nn.Sequential:
    """Self-attention along each axis in turn, the last axis first: axial attention (Ho et al. 2019, section 3)."""
    return nn.Sequential(*(SelfAttention(channels, heads, groups, along) for along in reversed(range(rank))))


class FrameAttention(nn.Module):
    """Each position attends to the same position of every frame: the temporal layer of a factorized video network.

    With tokens h_i, i = 1..D, of one position, their layer norms n_i and sinusoidal times p_i,

        h_i + W sum_j a_ij (v_j - v_i),    a_i = softmax_j(q_i . k_j / sqrt(d)),

    where q and k are linear in n + p and v in n. This is the temporal attention of Ho et al. (2022, Video Diffusion
    Models, section 3; from memory), but for the difference of values: what is the same in all frames passes unchanged,
    whatever the weights. So a video of one frame, or one that stands still, is treated as an image. W starts at zero:
    at first the layer is the identity.

    Args:
        channels: Size of a token, even.
        heads: Number of heads, a divisor of `channels`; d = channels / heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qk = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels, bias=False)  # of which only differences are taken
        self.project = zeroed(nn.Linear(channels, channels, bias=False))

    def forward(self, h: Tensor) -> Tensor:
        """Map tokens, (B, D, positions, channels), to the same shape."""
        tokens = self.norm(h.transpose(1, 2))
        times = torch.arange(h.shape[1], device=h.device)
        placed = tokens + sinusoidal(times, h.shape[3]).to(tokens.dtype)
        q, k = self.qk(placed).unflatten(3, (2, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        v = self.value(tokens).unflatten(3, (self.heads, -1)).transpose(2, 3)
        mixed = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v - v
        return h + self.project(mixed.transpose(2, 3).flatten(3)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, exist: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1) of queries, keys and values, (B, heads, N, d).

    By torch's fused kernel, but written out on CPUs where derivatives are needed: the kernel there has neither a
    second nor a forward-mode derivative, and its first is 2 to 20 times slower in bfloat16 on up to 256 tokens.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        exist: Which keys exist, broadcast to (B, heads, N, keys) bool; the weight of the others is 0. None for all.
    """
    differentiated = q.requires_grad or (not torch.compiler.is_compiling() and unpack_dual(q).tangent is not None)
    if q.device.type == "cpu" and differentiated:
        return attend_written_out(q, k, v, exist)
    return F.scaled_dot_product_attention(q, k, v, exist)


def apply_layer(layer: nn.Module, h: Tensor, e: Tensor) -> Tensor:
    """The output of a layer; only residual blocks depend on the noise embedding."""
    output: Tensor = layer(h, e) if isinstance(layer, ResidualBlock) else layer(h)
    return output
