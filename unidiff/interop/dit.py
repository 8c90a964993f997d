"""The DiT under diffusers' names: the same weights as a `DiTTransformer2DModel`, which computes the same function.

Their blocks have a noise and class embedding each, ours share one (as in the paper): it is written into every block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unidiff.backbone.attention import SoftmaxAttention
from unidiff.backbone.block_design import AdaLNZero
from unidiff.backbone.dit import DiT
from unidiff.backbone.patches import FREQUENCIES, position_table
from unidiff.errors import ParameterError
from unidiff.interop.names import Names, of_a_config, unsupported

__all__ = ["dit_from_diffusers", "dit_to_diffusers"]

_EMBEDDING = "norm1.emb."
_NAMES = Names(
    (r"^embedding\.inner\.", r"transformer_blocks.0.norm1.emb.timestep_embedder.linear_1."),
    (r"^embedding\.outer\.", r"transformer_blocks.0.norm1.emb.timestep_embedder.linear_2."),
    (r"^embedding\.label\.", r"transformer_blocks.0.norm1.emb.class_embedder.embedding_table."),
    (r"^stem\.", r"pos_embed.proj."),
    (r"^modulation\.", r"proj_out_1."),
    (r"^head\.", r"proj_out_2."),
    (r"^blocks\.(\d+)\.modulation\.", r"transformer_blocks.\1.norm1.linear."),
    (r"^blocks\.(\d+)\.(qkv)\.", r"transformer_blocks.\1.attn1.\2."),
    (r"^blocks\.(\d+)\.project\.", r"transformer_blocks.\1.attn1.to_out.0."),
    (r"^blocks\.(\d+)\.inner\.", r"transformer_blocks.\1.ff.net.0.proj."),
    (r"^blocks\.(\d+)\.outer\.", r"transformer_blocks.\1.ff.net.2."),
)
_LABEL, _TIME = "embedding.label.weight", "embedding.inner.weight"
# What a DiT here computes, by the keys of a DiTTransformer2DModel's config.
_ALWAYS = {
    "dropout": 0.0,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
}


def dit_to_diffusers(network: DiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the `DiTTransformer2DModel` that computes the same function.

    Its labels count from 0, the null class is the number `classes`, and its timestep is the noise condition. An
    unconditional network becomes one of a single class that adds nothing. The weights are the network's, not copies.

    Raises:
        ParameterError: If the images are not square, or the blocks are not those of diffusers' model.
    """
    if len(network.grid) != 2 or network.factorized or any(block.along is not None for block in network.blocks):
        raise ParameterError("network", "diffusers' DiTTransformer2DModel takes images, and attends to all patches.")
    for own, only in ((network.design, AdaLNZero()), (network.attention, SoftmaxAttention())):
        if own != only:
            raise ParameterError("network", f"diffusers' DiTTransformer2DModel has {only!r} only, got {own!r}.")
    channels, height, breadth = network.shape
    if height != breadth:
        problem = f"diffusers' DiTTransformer2DModel supports square images only, got {height}x{breadth}."
        raise ParameterError("network", problem)
    width, depth = network.stem.out_channels, len(network.blocks)
    heads: int = network.blocks[0].heads  # type: ignore[assignment]
    config: dict[str, Any] = {
        **_ALWAYS,
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": channels,
        "out_channels": network.outputs,
        "num_layers": depth,
        "sample_size": height,
        "patch_size": network.patch,
        "num_embeds_ada_norm": 1 if network.classes is None else network.classes,
    }
    state = network.state_dict()
    state[_TIME] = state[_TIME].roll(FREQUENCIES // 2, 1)
    state[_LABEL] = state[_TIME].new_zeros(2, width) if network.classes is None else state[_LABEL].roll(-1, 0)
    theirs = _NAMES.renamed(state)
    shared = {name: value for name, value in theirs.items() if _EMBEDDING in name}
    for i in range(1, depth):
        theirs |= {name.replace("blocks.0.", f"blocks.{i}."): value for name, value in shared.items()}
    return config, theirs


@of_a_config
def dit_from_diffusers(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> DiT:
    """The network that computes what a `DiTTransformer2DModel` does, with its weights, in evaluation mode.

    A model of one class whose class vectors are zero does not depend on its label: it becomes an unconditional network.

    Args:
        config: The model's config.
        state: Its weights by name, whose dtype becomes the network's.

    Raises:
        ParameterError: If no DiT computes the same, with all reasons, or the weights do not match the config.
    """
    wrong = unsupported(config, _ALWAYS, {"norm_eps": 1e-5})
    inputs = config.get("in_channels", 4)
    outputs = config.get("out_channels") or inputs
    if outputs not in (inputs, 2 * inputs):
        wrong.append(f"out_channels = {outputs} (must be in_channels = {inputs}, or twice as many)")
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        _, embedding, rest = name.partition(_EMBEDDING)
        first = f"transformer_blocks.0.{embedding}{rest}" if embedding else name
        if name != first and not (first in state and torch.equal(value, state[first])):
            wrong.append(f"{name} differs from that of block 0 (all blocks must share one embedding)")
        own[first] = value
    if wrong:
        raise ParameterError("config", f"cannot be represented as unidiff.DiT: {'; '.join(wrong)}.")
    classes: int | None = config.get("num_embeds_ada_norm", 1000)
    (table,) = _NAMES.theirs(_LABEL)
    if classes == 1 and table in own and not own[table].any():
        classes = None
        del own[table]
    side, heads = config.get("sample_size", 32), config.get("num_attention_heads", 16)
    patch, width = config.get("patch_size", 2), heads * config.get("attention_head_dim", 72)
    with torch.device("meta"):
        network = DiT(
            (inputs, side, side),
            patch=patch,
            width=width,
            depth=config.get("num_layers", 28),
            heads=heads,
            classes=classes,
            learned_variance=outputs != inputs,
        )
    _NAMES.load(network, own, {_TIME: lambda w: w.roll(FREQUENCIES // 2, 1), _LABEL: lambda rows: rows.roll(1, 0)})
    # Not a weight, so it is not in the state.
    network.positions = position_table((side // patch, side // patch), width).to(network.stem.weight)
    return network
