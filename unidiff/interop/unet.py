"""The U-Net under diffusers' names: the same weights as a `UNet2DModel`, which computes the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.layers import ResidualBlock, SelfAttention
from unidiff.backbone.unet import UNet
from unidiff.errors import ParameterError
from unidiff.interop.names import Names, of_a_config, unsupported

__all__ = ["unet_from_diffusers", "unet_to_diffusers"]

_NAMES = Names(
    (r"^embedding\.inner\.", r"time_embedding.linear_1."),
    (r"^embedding\.outer\.", r"time_embedding.linear_2."),
    (r"^embedding\.label\.", r"class_embedding."),
    (r"^stem\.", r"conv_in."),
    (r"^norm\.", r"conv_norm_out."),
    (r"^head\.", r"conv_out."),
    (r"^(down|up)\.(\d+)\.(\d+)\.residual\.", r"\1_blocks.\2.resnets.\3."),
    (r"^(down|up)\.(\d+)\.(\d+)\.attention\.", r"\1_blocks.\2.attentions.\3."),
    (r"^middle\.(\d+)\.residual\.", r"mid_block.resnets.\1."),
    (r"^middle\.(\d+)\.attention\.", r"mid_block.attentions.\1."),
    (r"^coarsen\.(\d+)\.(weight|bias)$", r"down_blocks.\1.downsamplers.0.conv.\2"),
    (r"^refine\.(\d+)\.(weight|bias)$", r"up_blocks.\1.upsamplers.0.conv.\2"),
    (r"^coarsen\.(\d+)\.", r"down_blocks.\1.downsamplers.0."),
    (r"^refine\.(\d+)\.", r"up_blocks.\1.upsamplers.0."),
    (r"\.embed\.", r".time_emb_proj."),
    (r"\.shortcut\.", r".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"\.project\.", r".to_out.0."),
)
_LABEL, _TIME = "embedding.label.weight", "embedding.inner.weight"
# What a UNet here computes, by the keys of a UNet2DModel's config; absent keys have these defaults there.
_ALWAYS = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "class_embed_type": None,
}


def unet_to_diffusers(network: UNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the `UNet2DModel` that computes the same function.

    Its labels count from 0, the null class is the number `classes`, and its timestep is the noise condition. The
    weights are the network's, not copies.

    Raises:
        ParameterError: If there is none, with the reason.
    """
    if len(network.shape) != 3:
        _reject(f"its samples have shape {network.shape}; only images, (C, H, W), can be exported")
    if any(m.along is not None for m in network.modules() if isinstance(m, SelfAttention)):
        _reject("its attention is axial; train with axial = False")
    channels = [int(stages[0].residual.conv1.out_channels) for stages in network.down]  # type: ignore[index]
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    attends = [isinstance(stages[0].attention, SelfAttention) for stages in network.down]  # type: ignore[index]
    groups = sorted({m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)})
    sizes = sorted({m.qkv.in_features // m.heads for m in network.modules() if isinstance(m, SelfAttention)})
    heads = {m.heads for m in network.modules() if isinstance(m, SelfAttention)}
    if network.patch != 1:
        _reject(f"it folds patches of {network.patch} x {network.patch} pixels; train with patch = 1")
    if channels[0] != network.stem.out_channels:
        _reject(f"its first level has {channels[0]} channels and not its width; let multipliers begin with 1")
    if len(groups) != 1:
        _reject(f"its norms have {', '.join(map(str, groups))} groups; train with one number, groups = ...")
    if len(sizes) > 1 and heads != {1}:
        _reject(f"its heads have {', '.join(map(str, sizes))} channels; train with one number, head_channels")
    inputs, height, breadth = network.shape
    resnet = any(isinstance(m, ResidualBlock) for m in network.coarsen)
    resampling = "resnet" if resnet else "conv"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    config: dict[str, Any] = {
        **_ALWAYS,
        "sample_size": height if height == breadth else [height, breadth],
        "in_channels": inputs,
        "out_channels": network.outputs,
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if attend else plain[0] for attend in attends],
        "up_block_types": ["AttnUpBlock2D" if attend else plain[1] for attend in reversed(attends)],
        "block_out_channels": channels,
        "layers_per_block": len(network.down[0]),  # type: ignore[arg-type]
        "downsample_padding": 1,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": blocks[0].dropout.p,
        "attention_head_dim": None if heads == {1} or not sizes else sizes[0],
        "norm_num_groups": groups[0],
        "attn_norm_num_groups": groups[0],
        "resnet_time_scale_shift": "scale_shift" if blocks[0].scale_shift else "default",
        "add_attention": isinstance(network.middle[0].attention, SelfAttention),
        "num_class_embeds": None if network.classes is None else network.classes + 1,
    }
    state = network.state_dict()
    if network.classes is not None:
        state[_LABEL] = state[_LABEL].roll(-1, 0)
    return config, _NAMES.renamed(state)


@of_a_config
def unet_from_diffusers(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    shape: tuple[int, ...] | None = None,
    null_class: bool = True,
) -> UNet:
    """The network that computes what a `UNet2DModel` does, with its weights, in evaluation mode.

    Args:
        config: The model's config.
        state: Its weights by name, whose dtype becomes the network's.
        shape: (C, H, W) of an image; None reads it from `sample_size`, a square if that is a number.
        null_class: Whether the last of its class vectors is the null class. If not, all are classes and the null class,
            which the model then lacks, adds nothing to the time embedding: outputs without a label have no meaning.

    Raises:
        ParameterError: If no UNet computes the same, with all reasons, or the weights do not match the config.
    """
    with torch.device("meta"):
        network = UNet(**_arguments(config, shape, null_class))
    half = network.embedding.width // 2 if config.get("flip_sin_to_cos", True) else 0

    def null_first(rows: Tensor) -> Tensor:
        return rows.roll(1, 0) if null_class else torch.cat([torch.zeros_like(rows[:1]), rows])

    _NAMES.load(network, state, {_LABEL: null_first, _TIME: lambda weight: weight.roll(half, 1)})
    return network


def _reject(problem: str) -> None:
    raise ParameterError("network", f"diffusers' UNet2DModel cannot compute it: {problem}.")


def _arguments(config: Mapping[str, Any], shape: tuple[int, ...] | None, null_class: bool) -> dict[str, Any]:
    """The arguments of the UNet that a config describes; a ParameterError with all that a UNet here cannot compute."""
    same = {"act_fn": "silu"} if config.get("act_fn") == "swish" else {}
    wrong = unsupported({**config, **same}, _ALWAYS)
    channels = list(config.get("block_out_channels", (224, 448, 672, 896)))
    width = channels[0]
    if any(c % width for c in channels):
        wrong.append(f"block_out_channels = {channels} (must be multiples of the first)")
    if config.get("time_embedding_dim") not in (None, 4 * width):
        wrong.append(f"time_embedding_dim = {config['time_embedding_dim']} (must be {4 * width})")
    down = list(config.get("down_block_types", ("DownBlock2D", *["AttnDownBlock2D"] * 3)))
    up = list(config.get("up_block_types", (*["AttnUpBlock2D"] * 3, "UpBlock2D")))
    attends, resnet = [], set()
    for direction, blocks in (("Down", down), ("Up", up)):
        plain, resampling, attention = (
            f"{direction}Block2D",
            f"Resnet{direction}sampleBlock2D",
            f"Attn{direction}Block2D",
        )
        for block in sorted(set(blocks) - {plain, resampling, attention}):
            wrong.append(f"block type {block} (must be {plain}, {resampling} or {attention})")
        attends.append([block == attention for block in blocks])
        by_default = config.get(f"{direction.lower()}sample_type", "conv") != "conv"
        resnet |= {{plain: False, resampling: True}.get(block, by_default) for block in blocks[:-1]}
    if attends[0] != attends[1][::-1]:
        wrong.append("attention at other resolutions on the way up than on the way down")
    if len(resnet) > 1:
        wrong.append("resampling by convolutions at some levels and by residual blocks at others")
    if False in resnet and config.get("downsample_padding", 1) != 1:
        wrong.append(f"downsample_padding = {config['downsample_padding']} (must be 1)")
    groups, scale_shift = config.get("norm_num_groups", 32), config.get("resnet_time_scale_shift", "default")
    if scale_shift not in ("default", "scale_shift"):
        wrong.append(f"resnet_time_scale_shift = {scale_shift!r} (must be 'default' or 'scale_shift')")
    middle = bool(config.get("add_attention", True))
    central = config.get("attn_norm_num_groups") or (groups if scale_shift == "default" else None)
    if middle and central != groups:
        wrong.append(f"attn_norm_num_groups = {central} (must be norm_num_groups = {groups})")
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs not in (inputs, 2 * inputs):
        wrong.append(f"out_channels = {outputs} (must be in_channels = {inputs}, or twice as many)")
    if shape is None:
        size = config.get("sample_size")
        if size is None:
            wrong.append("sample_size = None (pass shape)")
            size = 2 ** len(channels)
        shape = (inputs, *([size, size] if isinstance(size, int) else size))
    if wrong:
        raise ParameterError("config", f"cannot be represented as unidiff.UNet: {'; '.join(wrong)}.")
    sides = [max(shape[1:]) // 2**level for level in range(len(channels))]
    head_channels = config.get("attention_head_dim", 8)
    rows = config.get("num_class_embeds")
    return {
        "shape": shape,
        "width": width,
        "multipliers": tuple(c // width for c in channels),
        "blocks": config.get("layers_per_block", 2),
        "attention": tuple(side for side, attend in zip(sides, attends[0]) if attend),
        "heads": 1 if head_channels is None else None,
        "dropout": float(config.get("dropout", 0.0)),
        "classes": None if rows is None else rows - null_class,
        "groups": groups,
        "scale_shift": scale_shift == "scale_shift",
        "residual_resampling": True in resnet,
        "head_channels": head_channels,
        "middle_attention": middle,
        "learned_variance": outputs != inputs,
    }
