"""LoRA files: low-rank changes of a network's weights, as diffusers and peft save them, added to the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from unidiff.errors import RunError
from unidiff.reading import Unreadable, read_tensors

__all__ = ["add_lora"]

_FILE = "pytorch_lora_weights.safetensors"
_PREFIXES = ("unet.", "transformer.", "base_model.model.")
# The matrix A, and B, of a layer: peft's names, and those of diffusers before it used peft.
_ENDS = {".lora_A.weight": "A", ".lora.down.weight": "A", ".lora_B.weight": "B", ".lora.up.weight": "B"}


def add_lora(network: nn.Module, path: str | Path, scale: float = 1.0) -> None:
    """Add the changes of a LoRA file to the weights of a network: W + scale (alpha / r) B A (Hu et al. 2022, eq. 3).

    Args:
        network: The network, changed in place.
        path: The file, or the folder that holds it under diffusers' name.
        scale: Factor of the changes; 0 for none.

    Raises:
        RunError: If the file cannot be read, or is of another network or of another layout.
    """
    file = Path(path) / _FILE if Path(path).is_dir() else Path(path)
    try:
        tensors = read_tensors(file)
    except Unreadable as error:
        raise RunError(f"{file}: {error.problem}. Pass the .safetensors file of a LoRA.") from error
    facts, layers = _facts(file), dict[str, dict[str, Tensor]]()
    for key, value in tensors.items():
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
        end = next((end for end in _ENDS if key.endswith(end)), ".alpha" if key.endswith(".alpha") else None)
        if end is None or (not prefix and key.startswith("text_encoder")):
            problem = f"{key} is not a change of the network in the layout of diffusers"
            remedy = "Load it with diffusers' load_lora_weights into its pipeline, fuse_lora, and save that"
            raise RunError(f"{file}: {problem}. {remedy}.")
        layers.setdefault(key.removeprefix(prefix).removesuffix(end), {})[_ENDS.get(end, "alpha")] = value
    weights = {name.removesuffix(".weight"): weight for name, weight in network.named_parameters()}
    changes: dict[str, Tensor] = {}
    for name, parts in layers.items():
        weight, rank = weights.get(name), len(parts.get("A", ()))
        shapes = [tuple(parts[part].shape) for part in "AB" if part in parts]
        fits = weight is not None and len(shapes) == 2 and (shapes[1][0], *shapes[0][1:]) == tuple(weight.shape)
        if weight is None or not fits or parts["B"][0].numel() != rank:
            here = "none" if weight is None else str(tuple(weight.shape))
            problem = f"its {name} has shapes {shapes}, and that layer of the network has {here}"
            raise RunError(f"{file}: {problem}. It is the LoRA of another network.")
        product = parts["B"].flatten(1).double() @ parts["A"].flatten(1).double()
        factor = scale * _alpha(facts, name, parts, rank) / rank
        changes[name] = (factor * product).reshape(weight.shape)
    with torch.no_grad():
        for name, change in changes.items():  # all or none
            weights[name].add_(change.to(weights[name]))


def _facts(file: Path) -> dict[str, Any]:
    """What the file says of the adapter: the config of peft, its keys without the name of the part."""
    with suppress(Exception), safe_open(file, "pt") as opened:
        written = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
        return {key.split(".", 1)[-1]: value for key, value in written.items() if not key.startswith("text_encoder")}
    return {}


def _alpha(facts: Mapping[str, Any], name: str, parts: Mapping[str, Tensor], rank: int) -> float:
    """Alpha of a layer: its own, or that of the adapter, or the rank, as diffusers takes where nothing is said."""
    if "alpha" in parts:
        return float(parts["alpha"])
    patterns = facts.get("alpha_pattern") or {}
    return float(patterns.get(name, facts.get("lora_alpha") or rank))
