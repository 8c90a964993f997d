"""The U-Net under diffusers' names: the same weights as a `UNet2DModel`, which computes the same function.

A table of names, read in both directions; nothing here imports diffusers. What differs is the layout of three weights:

- queries, keys and values are one matrix here and three there;
- the null class is row 0 of the embedding here and the last row there (as in diffusers' DiT);
- their time embedding may have cosines before sines, which permutes the columns of the layer that reads it.

Weights are moved, never computed with, so a round trip keeps them bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.layers import ResidualBlock, SelfAttention
from unidiff.backbone.unet import UNet
from unidiff.errors import ParameterError
from unidiff.interop.names import Names

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
_DOWN = {"DownBlock2D": False, "ResnetDownsampleBlock2D": True}  # whether residual blocks resample
_UP = {"UpBlock2D": False, "ResnetUpsampleBlock2D": True}


def unet_to_diffusers(network: UNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the `UNet2DModel` that computes the same function.

    It is called with labels from 0, the null class as the number `classes`, and with the noise condition as its
    timestep. Its weights are those of the network, not copies.

    Raises:
        ParameterError: If there is none, with the reason.
    """
    channels = [int(stages[0].residual.conv1.out_channels) for stages in network.down]  # type: ignore[index]
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    attends = [isinstance(stages[0].attention, SelfAttention) for stages in network.down]  # type: ignore[index]
    groups = {m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)}
    sizes = {m.qkv.in_features // m.heads for m in network.modules() if isinstance(m, SelfAttention)}
    heads = {m.heads for m in network.modules() if isinstance(m, SelfAttention)}
    if network.patch != 1:
        _refuse(f"it folds patches of {network.patch} x {network.patch} pixels; train with patch = 1")
    if channels[0] != network.stem.out_channels:
        _refuse(f"its first level has {channels[0]} channels and not its width; let multipliers begin with 1")
    if len(groups) != 1:
        _refuse(f"its norms have {', '.join(map(str, sorted(groups)))} groups; train with one number, groups = ...")
    if len(sizes) > 1 and heads != {1}:
        _refuse(f"its heads have {', '.join(map(str, sorted(sizes)))} channels; train with one number, head_channels")
    resnet = any(isinstance(m, ResidualBlock) for m in network.coarsen)
    (number,) = groups
    plain = [next(name for name, is_resnet in kinds.items() if is_resnet == resnet) for kinds in (_DOWN, _UP)]
    down = ["AttnDownBlock2D" if attend else plain[0] for attend in attends]
    up = ["AttnUpBlock2D" if attend else plain[1] for attend in reversed(attends)]
    config: dict[str, Any] = {
        **_ALWAYS,
        "sample_size": list(network.shape[1:]),
        "in_channels": network.shape[0],
        "out_channels": network.outputs,
        "flip_sin_to_cos": False,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": channels,
        "layers_per_block": len(network.down[0]),  # type: ignore[arg-type]
        "downsample_padding": 1,
        "downsample_type": "resnet" if resnet else "conv",
        "upsample_type": "resnet" if resnet else "conv",
        "dropout": blocks[0].dropout.p,
        "attention_head_dim": None if heads == {1} or not sizes else sizes.pop(),
        "norm_num_groups": number,
        "attn_norm_num_groups": number,
        "resnet_time_scale_shift": "scale_shift" if blocks[0].scale_shift else "default",
        "add_attention": isinstance(network.middle[0].attention, SelfAttention),
        "num_class_embeds": None if network.classes is None else network.classes + 1,
    }
    state = network.state_dict()
    if network.classes is not None:
        state[_LABEL] = state[_LABEL].roll(-1, 0)
    return config, _NAMES.renamed(state)


def unet_from_diffusers(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    shape: tuple[int, ...] | None = None,
    null_class: bool = True,
) -> UNet:
    """The network that computes what a `UNet2DModel` does, with its weights.

    Args:
        config: The model's config.
        state: Its weights by name.
        shape: (C, H, W) of an image; None reads it from `sample_size`, a square if that is a number.
        null_class: Whether the last of its class vectors is the null class. If not, all are classes and the null class,
            which the model then lacks, adds nothing to the time embedding: an answer without a label has no meaning.

    Returns:
        The network, in evaluation mode, in the weights' dtype.

    Raises:
        ParameterError: If no UNet computes the same, with all reasons, or weights are missing, of other shapes or more
            than the config tells.
    """
    given = dict(config)
    arguments = _arguments(given, shape, null_class)
    with torch.device("meta"):
        network = UNet(**arguments)
    found = _NAMES.restored(state, network)
    if network.classes is not None:
        rows = found[_LABEL]
        found[_LABEL] = rows.roll(1, 0) if null_class else torch.cat([torch.zeros_like(rows[:1]), rows])
    if given.get("flip_sin_to_cos", True):
        found[_TIME] = found[_TIME].roll(found[_TIME].shape[1] // 2, 1)
    _NAMES.load(network, found)
    return network.eval().requires_grad_()


def _refuse(problem: str) -> None:
    raise ParameterError("network", f"diffusers' UNet2DModel cannot compute it: {problem}.")


def _arguments(config: dict[str, Any], shape: tuple[int, ...] | None, null_class: bool) -> dict[str, Any]:
    """The constructor arguments that a config amounts to.

    Raises:
        ParameterError: With everything that a UNet here cannot compute.
    """
    wrong = []
    for key, expected in _ALWAYS.items():
        value = config.get(key, expected)
        if value != expected and not (key == "act_fn" and value == "swish"):
            wrong.append(f"{key} = {value!r} (here {expected!r})")
    channels = list(config.get("block_out_channels", (224, 448, 672, 896)))
    width = channels[0]
    if any(c % width for c in channels):
        wrong.append(f"block_out_channels = {channels} (here multiples of the first)")
    if config.get("time_embedding_dim") not in (None, 4 * width):
        wrong.append(f"time_embedding_dim = {config['time_embedding_dim']} (here {4 * width})")
    down = list(config.get("down_block_types", ("DownBlock2D", *["AttnDownBlock2D"] * 3)))
    up = list(config.get("up_block_types", (*["AttnUpBlock2D"] * 3, "UpBlock2D")))
    attends, resnet = [], set()
    for kinds, blocks, attention, type_key in (
        (_DOWN, down, "AttnDownBlock2D", "downsample_type"),
        (_UP, up, "AttnUpBlock2D", "upsample_type"),
    ):
        for block in sorted(set(blocks) - {*kinds, attention}):
            wrong.append(f"the block {block} (here {', '.join([*kinds, attention])})")
        attends.append([block == attention for block in blocks])
        with_conv = config.get(type_key, "conv") == "conv"
        resnet |= {kinds.get(block, not with_conv) for block in blocks[:-1]}
    if attends[0] != attends[1][::-1]:
        wrong.append("attention at other resolutions on the way up than on the way down")
    if len(resnet) > 1:
        wrong.append("resampling by convolutions at some levels and by residual blocks at others")
    if False in resnet and config.get("downsample_padding", 1) != 1:
        wrong.append(f"downsample_padding = {config['downsample_padding']} (here 1)")
    groups, scale_shift = config.get("norm_num_groups", 32), config.get("resnet_time_scale_shift", "default")
    if scale_shift not in ("default", "scale_shift"):
        wrong.append(f"resnet_time_scale_shift = {scale_shift!r} (here 'default' or 'scale_shift')")
    middle = bool(config.get("add_attention", True))
    central = config.get("attn_norm_num_groups") or (groups if scale_shift == "default" else None)
    if middle and central != groups:
        wrong.append(f"attn_norm_num_groups = {central} (here norm_num_groups = {groups})")
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs not in (inputs, 2 * inputs):
        wrong.append(f"out_channels = {outputs} (here in_channels = {inputs}, or twice as many)")
    if shape is None:
        size = config.get("sample_size")
        if size is None:
            wrong.append("sample_size = None (give the shape)")
            size = 2 ** len(channels)
        shape = (inputs, *([size, size] if isinstance(size, int) else size))
    if wrong:
        raise ParameterError("config", f"no UNet of unidiff computes the same, because of {'; '.join(wrong)}.")
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
