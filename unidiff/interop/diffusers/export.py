"""A trained run as a pipeline that plain diffusers loads."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from unidiff.backbone.layers import sinusoidal
from unidiff.backbone.low_rank import low_rank_layers, merge_low_rank
from unidiff.codec.codec import Layout
from unidiff.data.latent import Latent
from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.files import whole_folder
from unidiff.interop.diffusers.architecture import NULL, Architecture, architecture_of
from unidiff.interop.diffusers.card import CARD, PICTURE, model_card, picture
from unidiff.interop.diffusers.folding import FACTOR, write_unfolding
from unidiff.interop.diffusers.native import MODEL, Native, write_native
from unidiff.interop.diffusers.tables import table_config
from unidiff.pretrained import WEIGHTS, import_diffusers
from unidiff.run.shipped import require_own
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.writable import require_writable

__all__ = ["Exported", "export", "exported_entries", "shift_timestep"]

_PARTS = {"model_index.json", "scheduler", "transformer", "unet", "unidiff", "vae", "vqvae"}
_ENTRIES = frozenset({*_PARTS, CARD, PICTURE})


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        directory: The folder.
        pipeline: Class of diffusers that loads it; None if only the network could be written.
        notices: What users should know, in sentences.
    """

    directory: Path
    pipeline: str | None
    notices: tuple[str, ...]


def export(
    run: GenerationRun | str | Path, directory: str | Path, *, overwrite: bool = False, allow_imports: bool = False
) -> Exported:
    """Write a run's model as a pipeline of diffusers, with the averaged weights, as in sampling.

    From the same noise, on its scheduler's times (`load_grid`), the pipeline gives the same samples. Its folder
    `unidiff` keeps what diffusers cannot express, so that `load` gives the model back whole. Where diffusers has no
    pipeline for the model (heat, say), the network alone is written, under diffusers' names, with that folder.

    Args:
        run: A run, or its directory.
        directory: The folder; written whole or not at all.
        overwrite: Whether an older export in it may be replaced.
        allow_imports: Accept classes from outside unidiff in the recipe of the run, which runs their code.

    Raises:
        RunError: If there is no run, the folder must not be replaced, or diffusers has no network like this one; the
            message says what setting of the recipe to change.
        RunFailed: If it cannot be written.
    """
    target = Path(directory)
    _check_replaceable(target, overwrite)
    if not isinstance(run, (GenerationRun, str, Path)):
        raise RunError(f"run must be a run or its directory, got a {type(run).__name__}")
    if isinstance(run, (str, Path)):
        run = load_generation(run, device="cpu", allow_imports=allow_imports)
    model, data = run.denoiser, run.recipe.data
    if data.unknown:
        problem = "not a run directory, but a model in the format of diffusers already"
        raise RunError(f"{run.directory}: {problem}. Copy the folder.")
    pipeline: str | None = None
    if (save := getattr(model.backbone, "save_pipeline", None)) is not None:
        try:
            with whole_folder(target) as folder:
                pipeline = save(folder)
                _check_replaceable(target, overwrite)
        except OSError as error:
            raise RunFailed(f"{target}: {error}. Choose another folder.") from error
        return Exported(target, pipeline, ())
    if low_rank_layers(model.backbone):
        merge_low_rank(merged := copy.deepcopy(model.backbone))
        model = model.with_backbone(merged)
    try:
        architecture = architecture_of(model.backbone)
        architecture.exported(model.backbone)
    except ParameterError as error:
        raise RunError(f"{run.directory}: cannot be exported: {error.problem}") from error
    layout = data.layout if isinstance(data, Latent) else None
    notices: list[str] = []
    table: dict[str, Any] = {}
    pipeline = None
    try:
        table = table_config(model.process, model.parameterization)
        pipeline = _pipeline(architecture, model.backbone, layout)
    except ParameterError as error:
        notices.append(f"Only the network was written, and no pipeline: {error.problem}. `load` reads it back whole.")
    notices += _notices(pipeline, model.classes, architecture.patch(model.backbone))
    network = model.backbone if pipeline is None else shift_timestep(model.backbone)
    native = Native(
        shape=data.shape,
        process=run.recipe.process,
        parameterization=model.parameterization,
        backbone=run.recipe.backbone,
        noise_condition=model.noise_condition,
    )
    try:
        with whole_folder(target) as folder:
            config, state = architecture.exported(network)
            _write_json(folder / architecture.folder / "config.json", {"_class_name": architecture.name, **config})
            # A copy of each: where diffusers repeats a weight, it is written as often.
            tensors = {name: w.detach().cpu().clone(memory_format=torch.contiguous_format) for name, w in state.items()}
            save_file(tensors, folder / architecture.folder / f"{WEIGHTS}.safetensors", {"format": "pt"})
            parts = {architecture.folder: architecture.name}
            codec = folder / architecture.codec
            if layout is not None:
                parts[architecture.codec] = layout.family
                for name, content in data.kept().items():
                    _write(codec / Path(name).name, content)
            elif pipeline == architecture.latents:
                parts[architecture.codec] = "AutoencoderDC"
                write_unfolding(codec, data.shape[0])
            if pipeline is not None:
                parts["scheduler"] = "DDPMScheduler" if pipeline == architecture.pixels else "DDIMScheduler"
                if pipeline == architecture.pixels and model.learned_variance:
                    table["variance_type"] = "learned_range"
                scheduler = {"_class_name": parts["scheduler"], **table}
                _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
                index = {name: ["diffusers", cls] for name, cls in parts.items()}
                _write_json(folder / "model_index.json", {"_class_name": pipeline, **index})
            ours, theirs = model.backbone.state_dict(), network.state_dict()
            changed = {name: value.cpu() for name, value in ours.items() if not torch.equal(value, theirs[name])}
            write_native(folder, native, run.recipe.to_yaml(), changed, model.process.measured())
            if (image := picture(run)) is not None:
                _write(folder / PICTURE, image)
            card = model_card(run, pipeline, notices, image is not None, target.absolute())
            _write(folder / CARD, card.encode())
            _check_replaceable(target, overwrite)  # another process may have written there in the meantime
    except OSError as error:
        raise RunFailed(f"{target}: {error}. Choose another folder.") from error
    return Exported(target, pipeline, tuple(notices))


def exported_entries(folder: Path) -> list[str]:
    """The files and folders of an exported model; raises a RunError if there is none."""
    if not os.path.isfile(folder / MODEL):
        raise RunError(f"{folder}: not an exported model. `unidiff export RUN {folder}` makes one of a run.")
    return sorted(path.name for path in folder.iterdir() if path.name in _ENTRIES)


def shift_timestep(network: Any) -> Any:
    """A copy of a UNet or DiT whose output at the noise condition c - 1 is this network's at c, for every c.

    Entry i of a table of 1000 has the noise condition c = i here and the index i - 1 in diffusers. Between them lies a
    rotation: sin(c w) and cos(c w) are sin((c-1) w) and cos((c-1) w) turned by the angle w, frequency by frequency,
    which the layer that follows absorbs. Only that layer's weights differ, by a rounding each.
    """
    shifted = copy.deepcopy(network)
    embedding = shifted.embedding
    weight = embedding.inner.weight
    one = torch.ones(1, dtype=torch.float64, device=weight.device)
    sin, cos = sinusoidal(one, embedding.width, embedding.shift).chunk(2, dim=1)
    of_sin, of_cos = weight.detach().double().chunk(2, dim=1)
    turned = torch.cat([of_sin * cos - of_cos * sin, of_sin * sin + of_cos * cos], dim=1)
    embedding.inner.weight = nn.Parameter(turned.to(weight), requires_grad=weight.requires_grad)
    return shifted


def _pipeline(architecture: Architecture, network: Any, layout: Layout | None) -> str:
    """The pipeline of diffusers for such a network, in the latents of a codec if any; a ParameterError if none."""
    patch, latents = architecture.patch(network), architecture.latents
    if layout is None and patch == 1 and architecture.pixels is not None:
        return architecture.pixels
    if layout is None and architecture.pixels is None:
        raise ParameterError("network", f"diffusers has no pipeline of a {type(network).__name__} on pixels")
    if patch != (FACTOR if layout is None else 1):
        problem = f"patches of {patch} x {patch} {'latents' if layout else 'pixels'}"
        raise ParameterError("network", f"diffusers has no pipeline that folds {problem}")
    _, height, breadth = network.shape
    if height != breadth:
        raise ParameterError("network", f"diffusers' {latents} supports square samples only, got {height}x{breadth}")
    if layout is None:
        import_diffusers()  # which makes the codec that unfolds them
    if network.learned_variance and latents == "LDMPipeline":
        raise ParameterError("network", "diffusers' LDMPipeline does not support a learned variance")
    if latents == "DiTPipeline" and (network.classes or 0) > NULL:
        problem = (
            f"diffusers' DiTPipeline uses index {NULL} for the null class, so {network.classes} classes are too many"
        )
        raise ParameterError("network", problem)
    if layout is not None and layout.shift:
        problem = f"diffusers' {latents} does not support a shift of latents, and the codec has {layout.shift}"
        raise ParameterError("codec", problem)
    return latents


def _notices(pipeline: str | None, classes: int | None, patch: int) -> list[str]:
    """How diffusers uses classes and patches where a user may expect otherwise."""
    notices = []
    if pipeline in ("DDPMPipeline", "LDMPipeline") and classes is not None:
        remedy = f"call its unet with class_labels, from 0; {classes} is the null class"
        notices.append(f"{pipeline} passes no class to its network: {remedy}.")
    if pipeline == "DiTPipeline" and classes is None:
        notices.append("DiTPipeline needs class_labels, one for each sample; this model is unconditional: pass zeros.")
    if patch > 1 and pipeline is None:
        notices.append(f"The exported network takes pixel_unshuffle(image, {patch}), and its output has that form too.")
    elif patch > 1:
        unfolded = "and its codec only unfolds them"
        notices.append(f"{pipeline} samples images folded by pixel_unshuffle(image, {patch}), {unfolded}.")
    return notices


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2).encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Raise a RunError if the folder must not be written to; nothing is changed."""
    remedy = "Choose another folder."
    if os.path.isfile(folder):
        raise RunError(f"{folder}: this is a file, not a folder. {remedy}")
    require_own(folder)
    require_writable(folder, remedy=remedy)
    if not os.path.isdir(folder) or not any(folder.iterdir()):
        return
    if not os.path.isfile(folder / MODEL):
        raise RunError(f"{folder}: the folder contains files that are not an exported model. {remedy}")
    if foreign := sorted(path.name for path in folder.iterdir() if path.name not in _ENTRIES):
        problem = f"{foreign[0]} is not part of the exported model and would be lost"
        raise RunError(f"{folder}: {problem}. Move it away. {remedy}")
    if not overwrite:
        raise RunError(
            f"{folder}: an exported model exists already. Replace it with --overwrite, or choose another folder."
        )
