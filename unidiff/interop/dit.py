"""The DiT under diffusers' names: the same weights as a `DiTTransformer2DModel`, which computes the same function.

A table of names, read in both directions; nothing here imports diffusers. What differs is the layout of four weights:

- queries, keys and values are one matrix here and three there;
- the null class is row 0 of the embedding here and the last row there;
- their noise embedding has cosines before sines, which permutes the columns of the layer that reads it;
- their blocks have a noise and class embedding each, ours share one (as in the paper): it is written into every block.

Weights are moved, never computed with, so a round trip keeps them bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unidiff.backbone.dit import FREQUENCIES, DiT, DiTBlock, position_table
from unidiff.errors import ParameterError
from unidiff.interop.names import Names

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
_TABLE = _NAMES.theirs(_LABEL)[0]
# What a DiT here computes, by the keys of a DiTTransformer2DModel's config, and those keys' defaults there.
_ALWAYS = {
    "dropout": (0.0, 0.0),
    "attention_bias": (True, True),
    "activation_fn": ("gelu-approximate", "gelu-approximate"),
    "upcast_attention": (False, False),
    "norm_type": ("ada_norm_zero", "ada_norm_zero"),
    "norm_elementwise_affine": (False, False),
    "norm_eps": (1e-6, 1e-5),
}


def dit_to_diffusers(network: DiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the `DiTTransformer2DModel` that computes the same function.

    It is called with labels from 0, the null class as the number `classes`, and with the noise condition as its
    timestep. An unconditional network becomes one of a single class that adds nothing. Its weights are those of the
    network, not copies.

    Raises:
        ParameterError: If the images are not square, which diffusers' model cannot be.
    """
    channels, height, breadth = network.shape
    if height != breadth:
        problem = f"diffusers' DiTTransformer2DModel knows square images only, and its are {height}x{breadth}."
        raise ParameterError("network", problem)
    blocks = [block for block in network.blocks if isinstance(block, DiTBlock)]
    width = network.stem.out_channels
    config: dict[str, Any] = {
        **{key: ours for key, (ours, _) in _ALWAYS.items()},
        "num_attention_heads": blocks[0].heads,
        "attention_head_dim": width // blocks[0].heads,
        "in_channels": channels,
        "out_channels": network.outputs,
        "num_layers": len(blocks),
        "sample_size": height,
        "patch_size": network.patch,
        "num_embeds_ada_norm": 1 if network.classes is None else network.classes,
    }
    state = network.state_dict()
    state[_TIME] = state[_TIME].roll(FREQUENCIES // 2, 1)
    state[_LABEL] = state[_TIME].new_zeros(2, width) if network.classes is None else state[_LABEL].roll(-1, 0)
    theirs = _NAMES.renamed(state)
    for name, value in list(theirs.items()):
        if _EMBEDDING in name:
            theirs |= {name.replace("blocks.0.", f"blocks.{i}."): value for i in range(1, len(blocks))}
    return config, theirs


def dit_from_diffusers(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> DiT:
    """The network that computes what a `DiTTransformer2DModel` does, with its weights.

    A model of one class whose class vectors are zero does not see its label: it becomes an unconditional network.

    Args:
        config: The model's config.
        state: Its weights by name.

    Returns:
        The network, in evaluation mode, in the weights' dtype.

    Raises:
        ParameterError: If no DiT computes the same, with all reasons, or weights are missing, of other shapes or more
            than the config tells.
    """
    wrong = []
    for key, (ours, default) in _ALWAYS.items():
        if config.get(key, default) != ours:
            wrong.append(f"{key} = {config.get(key, default)!r} (here {ours!r})")
    inputs = config.get("in_channels", 4)
    outputs = config.get("out_channels") or inputs
    if outputs not in (inputs, 2 * inputs):
        wrong.append(f"out_channels = {outputs} (here in_channels = {inputs}, or twice as many)")
    own: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    for name, value in state.items():
        (shared if _EMBEDDING in name else own)[name] = value
    for name, value in shared.items():
        first = f"transformer_blocks.0.{name[name.find(_EMBEDDING) :]}"
        if first not in shared or not torch.equal(value, shared[first]):
            wrong.append(f"{name} differs from that of block 0 (here all blocks share one embedding)")
        own[first] = value
    if wrong:
        raise ParameterError("config", f"no DiT of unidiff computes the same, because of {'; '.join(wrong)}.")
    classes: int | None = config.get("num_embeds_ada_norm", 1000)
    if classes == 1 and _TABLE in own and not own[_TABLE].any():
        classes = None
        del own[_TABLE]
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
    found = _NAMES.restored(own, network)
    found[_TIME] = found[_TIME].roll(FREQUENCIES // 2, 1)
    if classes is not None:
        found[_LABEL] = found[_LABEL].roll(1, 0)
    _NAMES.load(network, found)
    # No weight, so it is not in the state.
    network.positions = position_table(side // patch, side // patch, width).to(network.stem.weight)
    return network.eval().requires_grad_()
