"""A saved model or pipeline of diffusers as a denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unidiff.codec.folder import read_layout
from unidiff.denoiser import Denoiser
from unidiff.errors import DataError, ParameterError, RunError, is_whole
from unidiff.interop.diffusers.native import is_native, read_native
from unidiff.interop.diffusers.network import ClipSample, DiffusersBackbone, DiffusersDenoiser
from unidiff.interop.diffusers.scheduler import Reading, Timesteps, read_scheduler, timesteps_of
from unidiff.noise_condition import NoiseCondition, TableIndex, Timestep
from unidiff.parameterization import Parameterization
from unidiff.pretrained import import_diffusers, load_part, local_folder, model_type, read_json
from unidiff.process.base import Process

__all__ = ["load", "load_grid"]

_NETWORKS = {"unet": "UNet2DModel", "transformer": "DiTTransformer2DModel"}
_SUPPORTED = tuple(_NETWORKS.values())


def load(
    path_or_name: str | Path,
    *,
    scheduler: Mapping[str, Any] | None = None,
    process: Process | None = None,
    parameterization: Parameterization | None = None,
    allow_pickle: bool = False,
    device: str | torch.device = "cpu",
) -> Denoiser:
    """Load a model that diffusers has saved, with the process and parameterization that its scheduler's config says.

    Args:
        path_or_name: The folder of a pipeline (DDPMPipeline, DDIMPipeline, LDMPipeline, DiTPipeline, or any other of a
            `unet` or `transformer` with a `scheduler`) or of a model alone, or a name on the hub, owner/name. A folder
            that `export` wrote gives back the model that was exported, weights and all.
        scheduler: Entries of the scheduler's config to replace, such as {"clip_sample": False}.
        process: For a model without a scheduler only: what makes its states noisy. It is told the index t T - 1 where
            the process is a table (`native_times`) of T entries, else 1000 t.
        parameterization: For a model without a scheduler only: what it predicts.
        allow_pickle: Accept weights in pickle files (.bin), which may run any code when they are read.
        device: Where the model is to be.

    Returns:
        The model. Of a latent pipeline it is the model of its latents, which `unidiff.codec.load_codec` of the same
        folder decodes.

    Raises:
        RunError: If files are missing or broken, or something in them is unsupported: it says what was found and what
            is supported. Also if diffusers is not installed.
        ParameterError: If `process` and `parameterization` are missing, or not wanted.
    """
    folder = local_folder(path_or_name, allow_pickle)
    given = {"process": process, "parameterization": parameterization}
    if is_native(folder):
        for name, value in {"scheduler": scheduler, **given}.items():
            if value is not None:
                raise ParameterError(name, f"{folder} was exported from unidiff, and says it. Leave it out.")
        return read_native(folder, device)
    import_diffusers()
    part, config = _parts(folder)
    if config is not None:
        for name, value in given.items():
            if value is not None:
                raise ParameterError(name, f"{folder} has a scheduler, which says it. Leave it out.")
        reading = read_scheduler({**config, **(scheduler or {})}, str(_inside(folder, "scheduler")))
    else:
        model_type(part, _SUPPORTED)
        if scheduler is not None:
            raise ParameterError("scheduler", f"{folder} is a model without a scheduler: there is nothing to replace.")
        if process is None or parameterization is None:
            missing = " and ".join(name for name, value in given.items() if value is None)
            problem = f"{folder} is a model without a scheduler, which would say it. Give it, as in"
            example = "load(folder, process=DDPM(), parameterization=Eps())"
            raise ParameterError(missing, f"{problem} {example}.")
        table = process.native_times()
        condition: NoiseCondition = Timestep() if table is None else TableIndex(len(table))
        reading = Reading(process, parameterization, condition)
    network = load_part(part, _SUPPORTED, allow_pickle)
    facts = _facts(network, part)
    _check_codec(folder, facts.shape)
    if facts.learned_variance and reading.variance == "learned":
        problem = "variance_type 'learned' was found, a variance itself"
        raise RunError(f"{folder}: {problem}; supported of a learned one is 'learned_range'.")
    backbone = DiffusersBackbone(network, *facts).to(device)
    denoiser: Denoiser
    try:
        denoiser = DiffusersDenoiser(reading.process, reading.parameterization, backbone, reading.noise_condition)
    except ParameterError as error:
        raise RunError(f"{folder}: {error}") from error
    return denoiser if reading.clip is None else ClipSample(denoiser, reading.clip)


def load_grid(path_or_name: str | Path, steps: int, *, scheduler: Mapping[str, Any] | None = None) -> Timesteps:
    """The times at which a pipeline's own scheduler takes `steps` steps: its `timestep_spacing`, offsets and all.

    Args:
        path_or_name: The folder of a pipeline, or a name on the hub.
        steps: `num_inference_steps`.
        scheduler: Entries of the scheduler's config to replace, such as {"timestep_spacing": "trailing"}.

    Warns:
        UserWarning: If diffusers' own DDIM would step past these times; see docs/diffusers.md.

    Raises:
        RunError: If there is no scheduler, it is unsupported, or it has no times for that many steps.
        ParameterError: If `steps` is no integer of at least 1.
    """
    import_diffusers()
    folder = local_folder(path_or_name, False)
    config = _parts(folder)[1]
    if config is None:
        raise RunError(f"{folder}: this is a model without a scheduler, so nothing says its times. Use unidiff.Native.")
    return timesteps_of({**config, **(scheduler or {})}, steps, str(_inside(folder, "scheduler")))


def _parts(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The network's folder and the scheduler's config, or None for a model alone."""
    index = folder / "model_index.json"
    if not index.is_file():
        if not (folder / "config.json").is_file():
            problem = "neither model_index.json (a pipeline) nor config.json (a model) is there"
            raise RunError(f"{folder}: {problem}. Give the folder that save_pretrained wrote.")
        config = folder / "scheduler_config.json"
        return folder, read_json(config) if config.is_file() else None
    listed = read_json(index)
    pipeline = listed.get("_class_name")
    present = [name for name, part in listed.items() if isinstance(part, list) and part and part[0]]
    names = [name for name in _NETWORKS if name in present]
    if len(names) != 1 or "scheduler" not in present:
        found = ", ".join(present) or "nothing"
        needed = "a unet or a transformer, and a scheduler"
        raise RunError(f"{folder}: the {pipeline} consists of {found}; supported is a pipeline of {needed}.")
    told = [name for name in ("text_encoder", "image_encoder", "controlnet") if name in present]
    if told:
        problem = f"the {pipeline} is told of more than classes ({', '.join(told)})"
        raise RunError(f"{folder}: {problem}; supported are unconditional pipelines and those with classes.")
    return _inside(folder, names[0]), read_json(_inside(folder, "scheduler") / "scheduler_config.json")


def _inside(folder: Path, part: str) -> Path:
    """Where a pipeline keeps a part: the first pipelines, such as google/ddpm-cifar10-32, keep all in one folder."""
    return folder / part if (folder / part).is_dir() else folder


def _check_codec(folder: Path, shape: tuple[int, ...]) -> None:
    """Refuse a pipeline whose autoencoder has other latents than its network.

    Raises:
        RunError: With both numbers of channels.
    """
    for name in ("vae", "vqvae"):
        if not (folder / name / "config.json").is_file():
            continue
        try:
            channels = read_layout(folder / name).latent_channels
        except DataError as error:
            raise RunError(str(error)) from error
        if channels != shape[0]:
            problem = f"the latents of its {name} have {channels} channels, and its network takes {shape[0]}"
            raise RunError(f"{folder}: {problem}. They are not of one pipeline.")


class _Facts(NamedTuple):
    """What a DiffusersBackbone needs to know of its network."""

    shape: tuple[int, ...]
    classes: int | None
    null: int | None
    learned_variance: bool


def _facts(network: Any, place: Path) -> _Facts:
    """Read a model of diffusers.

    Raises:
        RunError: If it is unsupported.
    """
    config = network.config
    channels = config.in_channels
    out = config.out_channels or channels
    if out not in (channels, 2 * channels):
        allowed = f"{channels}, or {2 * channels} with a learned variance"
        raise RunError(f"{place}: {channels} channels go in and {out} come out; supported are {allowed}.")
    size = config.sample_size
    if size is None:
        raise RunError(
            f"{place}: the config has no sample_size, so nothing says how large a sample is. Write it there."
        )
    if not is_whole(size) and not (isinstance(size, (list, tuple)) and len(size) == 2 and all(map(is_whole, size))):
        raise RunError(f"{place}: sample_size {size!r} was found; supported are an integer or two, [height, width].")
    shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    if "num_embeds_ada_norm" in config:
        classes = config.num_embeds_ada_norm
        rows = network.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.num_embeddings
        return _Facts(shape, classes, classes if rows > classes else None, out != channels)
    if config.time_embedding_type == "learned":
        problem = "time_embedding_type 'learned' was found, which knows no time between two entries of the table"
        raise RunError(f"{place}: {problem}; supported are 'positional' and 'fourier'.")
    if config.class_embed_type is not None:
        problem = f"class_embed_type {config.class_embed_type!r} was found"
        raise RunError(f"{place}: {problem}; supported is none, or num_class_embeds alone.")
    return _Facts(shape, config.num_class_embeds, None, out != channels)
