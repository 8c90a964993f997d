"""Weights in safetensors files, whose format refuses tensors that share memory: tied weights are written once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from unidiff.reading import read_tensors

__all__ = ["load_tied", "without_ties"]


def without_ties(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights as safetensors takes them: contiguous, and none shares memory with another.

    Returns:
        The weights, without those that are others under a second name; and the first name of each of these, by the
        second: the metadata of the file, of which `load_tied` makes all weights again. Tensors that share memory in
        another way, such as views of one buffer, are copied.
    """
    names: dict[object, str] = {}
    ties: dict[str, str] = {}
    for name, value in weights.items():
        own = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device) if value.data_ptr() else name
        if (first := names.setdefault(own, name)) != name:
            ties[name] = first
    kept = {name: weights[name].contiguous() for name in weights if name not in ties}
    used: set[tuple[torch.device, int]] = set()
    for name, value in kept.items():
        storage = (value.device, value.untyped_storage().data_ptr())
        if storage in used and value.data_ptr():
            kept[name] = value.clone()
        used.add(storage)
    return kept, ties


def load_tied(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """All weights of a file, by every name; tied ones are one tensor."""
    weights = read_tensors(path, device)
    with safe_open(path, framework="pt") as file:
        ties = file.metadata() or {}
    return weights | {name: weights[first] for name, first in ties.items() if first in weights}
