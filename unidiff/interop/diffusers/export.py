"""A trained run as a pipeline that plain diffusers loads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from unidiff.codec.codec import Layout
from unidiff.data.latent import Latent
from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.files import whole_folder
from unidiff.interop.diffusers.folding import FACTOR, write_unfolding
from unidiff.interop.diffusers.kinds import NULL, Architecture, kind_of
from unidiff.interop.diffusers.native import MODEL, Native, write_native
from unidiff.interop.diffusers.tables import table_config
from unidiff.interop.diffusers.timestep_shift import shift_timestep
from unidiff.pretrained import WEIGHTS, import_diffusers
from unidiff.tasks.generation import GenerationRun, load_generation

__all__ = ["Exported", "export"]

_ENTRIES = frozenset({"model_index.json", "scheduler", "transformer", "unet", "unidiff", "vae", "vqvae"})


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        directory: Where.
        pipeline: Class of diffusers that loads it; None if only the network could be written.
        notices: What its user should know, in sentences.
    """

    directory: Path
    pipeline: str | None
    notices: tuple[str, ...]


def export(run: GenerationRun | str | Path, directory: str | Path, *, overwrite: bool = False) -> Exported:
    """Write a run's model as a pipeline of diffusers: the averaged weights, as samples are drawn with.

    The pipeline draws what is drawn here from the same noise, on its scheduler's times (`load_grid`). A folder
    `unidiff` in it keeps what diffusers has no words for, so that `load` gives the model back whole. Where diffusers
    has no pipeline for the model (heat, say), the network alone is written, under diffusers' names, with that folder.

    Args:
        run: A run, or its directory.
        directory: Where to write; written whole or not at all.
        overwrite: An older export in it may be replaced.

    Returns:
        What was written.

    Raises:
        RunError: If there is no run, the place is taken, or diffusers has no network like this one; the message says
            what setting of the recipe to change.
        RunFailed: If it cannot be written.
    """
    place = Path(directory)
    _check_place(place, overwrite)
    if not isinstance(run, (GenerationRun, str, Path)):
        raise RunError(f"A {type(run).__name__} was given; what is exported is a run, or its directory.")
    run = load_generation(run, device="cpu") if isinstance(run, (str, Path)) else run
    model, data = run.denoiser, run.recipe.data
    try:
        kind = kind_of(model.backbone)
        _ = kind.exported(model.backbone)
    except ParameterError as error:
        raise RunError(f"{run.directory}: it cannot be exported: {error.problem}") from error
    layout = data.layout if isinstance(data, Latent) else None
    notices: list[str] = []
    table: dict[str, Any] = {}
    pipeline: str | None = None
    try:
        table = table_config(model.process, model.parameterization)
        pipeline = _pipeline(kind, model.backbone, layout)
    except ParameterError as error:
        notices.append(f"Only the network was written, and no pipeline: {error.problem}. `load` reads it back whole.")
    notices += _on_classes(pipeline, model.classes) + _on_patches(pipeline, kind.patch(model.backbone))
    network = model.backbone if pipeline is None else shift_timestep(model.backbone)
    native = Native(
        shape=data.shape,
        process=run.recipe.process,
        parameterization=model.parameterization,
        backbone=run.recipe.backbone,
        noise_condition=model.noise_condition,
    )
    try:
        with whole_folder(place) as folder:
            _write_network(folder / kind.folder, kind, network)
            parts = {kind.folder: kind.name}
            if layout is not None:
                parts[kind.codec] = layout.family
                for name, content in data.kept().items():
                    _write(folder / kind.codec / Path(name).name, content)
            elif pipeline == kind.latents:
                parts[kind.codec] = "AutoencoderDC"
                write_unfolding(folder / kind.codec, data.shape[0])
            if pipeline is not None:
                parts["scheduler"] = "DDPMScheduler" if pipeline == kind.pixels else "DDIMScheduler"
                if pipeline == kind.pixels and model.learned_variance:
                    table["variance_type"] = "learned_range"
                _write_json(
                    folder / "scheduler" / "scheduler_config.json", {"_class_name": parts["scheduler"], **table}
                )
                index = {name: ["diffusers", part] for name, part in parts.items()}
                _write_json(folder / "model_index.json", {"_class_name": pipeline, **index})
            ours, theirs = model.backbone.state_dict(), network.state_dict()
            changed = {name: value.cpu() for name, value in ours.items() if not torch.equal(value, theirs[name])}
            write_native(folder, native, run.recipe.to_yaml(), changed, model.process.measured())
    except OSError as error:
        raise RunFailed(f"{place}: {error}. Choose another folder.") from error
    return Exported(place, pipeline, tuple(notices))


def _pipeline(kind: Architecture, network: Any, layout: Layout | None) -> str:
    """The class of diffusers that draws with such a network, in the latents of a codec if there is one.

    Raises:
        ParameterError: If there is none.
    """
    patch = kind.patch(network)
    if layout is None and patch == 1 and kind.pixels is not None:
        return kind.pixels
    if layout is None and kind.pixels is None:
        raise ParameterError("network", f"diffusers has no pipeline of a {type(network).__name__} on pixels")
    if patch != (FACTOR if layout is None else 1):
        problem = (
            f"diffusers has no pipeline that folds patches of {patch} x {patch} {'latents' if layout else 'pixels'}"
        )
        raise ParameterError("network", problem)
    _, height, breadth = network.shape
    if height != breadth:
        problem = f"diffusers' {kind.latents} draws square samples only, and these are {height}x{breadth}"
        raise ParameterError("network", problem)
    if layout is None:
        import_diffusers()  # which makes the codec that unfolds them
    if network.learned_variance and kind.latents == "LDMPipeline":
        raise ParameterError("network", "diffusers' LDMPipeline knows no learned variance")
    if kind.latents == "DiTPipeline" and (network.classes or 0) > NULL:
        problem = f"diffusers' DiTPipeline takes index {NULL} for no class, and of {network.classes} it is one"
        raise ParameterError("network", problem)
    if layout is not None and layout.shift:
        problem = f"diffusers' {kind.latents} knows no shift of latents, and the codec has {layout.shift}"
        raise ParameterError("codec", problem)
    return kind.latents


def _on_classes(pipeline: str | None, classes: int | None) -> list[str]:
    """What a pipeline of diffusers makes of classes, if it is not what the user expects."""
    if pipeline in ("DDPMPipeline", "LDMPipeline") and classes is not None:
        told = "call its unet with class_labels, from 0"
        return [f"{pipeline} names no class to its network: {told}; {classes} is no class."]
    if pipeline == "DiTPipeline" and classes is None:
        return ["DiTPipeline asks for class_labels, one for each sample; this model was told of none: give zeros."]
    return []


def _on_patches(pipeline: str | None, patch: int) -> list[str]:
    """How a network of patches is to be used in diffusers."""
    if patch == 1:
        return []
    if pipeline is None:
        return [f"The exported network takes pixel_unshuffle(image, {patch}) and answers in that form."]
    return [f"{pipeline} draws images folded by pixel_unshuffle(image, {patch}), and its codec only unfolds them."]


def _write_network(folder: Path, kind: Architecture, network: nn.Module) -> None:
    config, state = kind.exported(network)
    _write_json(folder / "config.json", {"_class_name": kind.name, **config})
    # A copy of each: where diffusers repeats a weight, it is written as often.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    save_file(tensors, folder / f"{WEIGHTS}.safetensors", {"format": "pt"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2).encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _check_place(place: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written to; nothing is changed.

    Raises:
        RunError: With the reason.
    """
    elsewhere = "Choose another folder."
    if place.exists() and not place.is_dir():
        raise RunError(f"{place}: this is a file, so no folder can be made there. {elsewhere}")
    if not place.is_dir() or not any(place.iterdir()):
        return
    if not (place / MODEL).is_file():
        raise RunError(f"{place}: the folder holds files that are no exported model. {elsewhere}")
    if foreign := sorted(path.name for path in place.iterdir() if path.name not in _ENTRIES):
        problem = f"{foreign[0]} is no part of the exported model that is there, and would be lost"
        raise RunError(f"{place}: {problem}. Move it away. {elsewhere}")
    if not overwrite:
        raise RunError(f"{place}: an exported model is already there. Replace it by --overwrite. {elsewhere}")
