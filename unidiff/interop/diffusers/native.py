"""What diffusers cannot express of an exported model, in a folder beside it, and the model read back whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unidiff.backbone.base import Backbone
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers.architecture import architecture_of
from unidiff.noise_condition import NoiseCondition, Timestep
from unidiff.parameterization import Parameterization
from unidiff.pretrained import WEIGHTS, read_json
from unidiff.process.base import Process
from unidiff.reading import Unreadable, read_tensors
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.read import read_recipe
from unidiff.recipe.save import to_plain
from unidiff.recipe.yaml_tree import write_yaml

__all__ = ["MODEL", "Native", "read_native", "write_native"]

MODEL = "unidiff/model.yaml"
_RECIPE, _CHANGED = "unidiff/recipe.yaml", "unidiff/weights.safetensors"
_NETWORK, _PROCESS = "network.", "process."


@dataclass(frozen=True, kw_only=True)
class Native:
    """An exported model as it is here.

    Args:
        shape: Shape of a sample of the network.
        process: The process of the noisy states.
        parameterization: What the network predicts.
        backbone: The network.
        noise_condition: How the noise level is passed to it.
    """

    shape: tuple[int, ...]
    process: Process
    parameterization: Parameterization
    backbone: Blueprint[Backbone]
    noise_condition: NoiseCondition = field(default_factory=Timestep)


def write_native(
    folder: Path, native: Native, recipe: str, changed: Mapping[str, Tensor], measured: Mapping[str, Tensor]
) -> None:
    """Write the folder `unidiff` of an exported model.

    Args:
        folder: The exported model.
        native: The model.
        recipe: The resolved recipe of its run, for people.
        changed: Weights of the network whose values differ in the exported one.
        measured: What the process measured of the data.
    """
    (folder / MODEL).parent.mkdir()
    (folder / MODEL).write_text(write_yaml(to_plain(native)), encoding="utf-8")
    (folder / _RECIPE).write_text(recipe, encoding="utf-8")
    groups = ((_NETWORK, changed), (_PROCESS, measured))
    tensors = {prefix + name: value.contiguous() for prefix, group in groups for name, value in group.items()}
    save_file(tensors, folder / _CHANGED)


def read_native(folder: Path, device: str | torch.device, allow_imports: bool = False) -> NeuralDenoiser:
    """An exported model, read back: same process, parameterization and network, and every weight.

    Raises:
        RunError: If a file is missing or damaged.
        RecipeError: If model.yaml is.
    """
    native = read_recipe(Native, folder / MODEL, allow_imports=allow_imports)
    network = native.backbone.build(shape=native.shape)
    architecture = architecture_of(network)
    part = folder / architecture.folder
    config, tensors = read_json(part / "config.json"), _read(folder / _CHANGED)
    changed, measured = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in (_NETWORK, _PROCESS)
    )
    try:
        weights = architecture.restored(config, _read(part / f"{WEIGHTS}.safetensors"), network)
        network.load_state_dict({**weights, **changed})
        process = native.process.with_measured(measured) if measured else native.process
    except (ParameterError, RuntimeError, KeyError) as error:
        problem = f"the weights do not match {folder / MODEL} ({error})"
        raise RunError(f"{part}: {problem}. Export the model again.") from error
    network = network.to(device).eval().requires_grad_(False)
    return NeuralDenoiser(process, native.parameterization, network, native.noise_condition)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_tensors(path)
    except Unreadable as error:
        raise RunError(f"{path}: {error.problem}. Export the model again.") from error
