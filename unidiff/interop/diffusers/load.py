"""A saved model or pipeline of diffusers as a denoiser."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unidiff.codec.folder import read_layout
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import DataError, ParameterError, RunError, is_whole, require, require_whole
from unidiff.interop.diffusers.control import controlled, kept_controls
from unidiff.interop.diffusers.families import FAMILIES, family_of
from unidiff.interop.diffusers.lora import add_lora
from unidiff.interop.diffusers.native import MODEL, read_native
from unidiff.interop.diffusers.network import ClipSample, DiffusersBackbone, DiffusersDenoiser
from unidiff.interop.diffusers.refiner import refined
from unidiff.interop.diffusers.scheduler import SchedulerModel, read_scheduler
from unidiff.interop.diffusers.texts import prompted, times_options
from unidiff.interop.diffusers.timesteps import Timesteps, timesteps_of
from unidiff.noise_condition import TableIndex, Timestep
from unidiff.parameterization import Parameterization
from unidiff.pretrained import import_diffusers, load_part, local_folder, model_type, read_json
from unidiff.process.base import Process

__all__ = ["SUPPORTED", "load", "load_grid", "network_backbone", "network_folder", "scheduler_of"]

_NETWORKS = {"unet": "UNet2DModel", "transformer": "DiTTransformer2DModel"}
SUPPORTED = tuple(_NETWORKS.values())


def load(
    path_or_name: str | Path,
    *,
    scheduler: Mapping[str, Any] | None = None,
    process: Process | None = None,
    parameterization: Parameterization | None = None,
    size: tuple[int, int] | None = None,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    control: str | Path | Sequence[str | Path] = (),
    control_scale: float | Sequence[float] = 1.0,
    refiner: str | Path | None = None,
    refiner_from: float = 0.2,
    allow_pickle: bool = False,
    allow_imports: bool = False,
    device: str | torch.device = "cpu",
) -> Denoiser:
    """Load a model that diffusers has saved, with the process and parameterization that its scheduler's config says.

    Args:
        path_or_name: The folder of a pipeline (DDPMPipeline, DDIMPipeline, LDMPipeline, DiTPipeline, or any other of a
            `unet` or `transformer` with a `scheduler`; of Stable Diffusion 1 to 3, SDXL, Flux, PixArt and Sana, whose
            condition is `prompt`) or of a model alone, or a name on the hub, owner/name. A folder that `export` wrote
            gives back the model that was exported, weights and all.
        scheduler: Entries of the scheduler's config to replace, such as {"clip_sample": False}.
        process: Only for a model without a scheduler: the process of its noisy states. Its noise condition is the index
            t T - 1 where the process is a table (`native_times`) of T entries, else 1000 t.
        parameterization: Only for a model without a scheduler: what it predicts.
        size: Height and width of the images of a model of text, in pixels; those it was trained on if None.
        lora: A LoRA file, whose changes are added to the weights of the network.
        lora_scale: Factor of these changes.
        control: ControlNets of a model of text, folders or names on the hub, or one of them; each makes its image a
            further condition, `control`, `control_2`, ... A pipeline with its own ControlNets has them already.
        control_scale: Factor of the features of the ControlNets, for all or one for each; 0 for the model without.
        refiner: A pipeline whose model takes over near the data, as SDXL's does: a folder, or a name on the hub. The
            prompt is encoded for both. See `refined`.
        refiner_from: The share of noisy times, from 0 to 1, that is the refiner's; 1 - `denoising_end` of diffusers.
        allow_pickle: Accept weights in pickle files (.bin), which may run any code when they are read.
        allow_imports: Accept classes from outside unidiff in what `export` wrote, which runs their module's code.
        device: Where the model is to be.

    Returns:
        The model. Of a latent pipeline it is the model of its latents, which `unidiff.codec.load_codec` of the same
        folder decodes.

    Raises:
        RunError: If files are missing or broken, something in them is unsupported, or diffusers is not installed.
        ParameterError: If `process` and `parameterization` are missing, or passed though the folder determines them.
    """
    folder = local_folder(path_or_name, allow_pickle)
    model_options = {"process": process, "parameterization": parameterization}
    controls = [control] if isinstance(control, (str, Path)) else list(control)
    if os.path.isfile(folder / MODEL):
        others = {"size": size, "lora": lora, "control": controls or None, "refiner": refiner, **model_options}
        _require_absent({"scheduler": scheduler, **others}, f"{folder} was exported from unidiff")
        return read_native(folder, device, allow_imports)
    import_diffusers()
    part, config = _parts(folder)
    if config is not None:
        _require_absent(model_options, f"{folder} has a scheduler")
        model = read_scheduler({**config, **(scheduler or {})}, str(_inside(folder, "scheduler")))
    else:
        model_type(part, SUPPORTED)
        if scheduler is not None:
            raise ParameterError("scheduler", f"{folder} is a model without a scheduler: there is nothing to replace.")
        if process is None or parameterization is None:
            missing = " and ".join(name for name, value in model_options.items() if value is None)
            remedy = "Pass both, as in load(folder, process=DDPM(), parameterization=Eps())."
            raise ParameterError(missing, f"{folder} is a model without a scheduler to determine it. {remedy}")
        table = process.native_times()
        condition = Timestep() if table is None else TableIndex(len(table))
        model = SchedulerModel(process, parameterization, condition)
    family = family_of(folder)
    if family is None:
        _require_absent({"size": size}, f"{folder} has samples of one size")
        for name, value in (("control", controls), ("refiner", refiner)):
            if value:
                raise ParameterError(name, f"{folder} is not a pipeline from text to images. Leave it out.")
    controls = controls or [*kept_controls(folder)]
    network = load_part(part, SUPPORTED if family is None else (family.network,), allow_pickle)
    if lora is not None:
        add_lora(network, lora, lora_scale)
    backbone: Any
    try:
        backbone = (
            network_backbone(network) if family is None else prompted(folder, family, network, size, device=device)
        )
        _check_codec(folder, backbone.shape)
        if controls:
            backbone = controlled(backbone, network, controls, control_scale, allow_pickle)
        learned = backbone.learned_variance and model.variance == "learned"
        require(not learned, "variance_type", model.variance, "'learned_range' where a variance is learned")
        backbone = backbone.to(device)
        cls = NeuralDenoiser if model.scaled else DiffusersDenoiser
        denoiser = cls(model.process, model.parameterization, backbone, model.noise_condition)
    except ParameterError as error:
        raise RunError(f"{folder}: {error}") from error
    whole = denoiser if model.clip is None else ClipSample(denoiser, model.clip)
    if refiner is None:
        return whole
    options: dict[str, Any] = {"size": size, "allow_pickle": allow_pickle, "device": device}
    return refined(whole, load(refiner, scheduler=scheduler, **options), refiner_from)


def _require_absent(options: Mapping[str, object], reason: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ParameterError(name, f"{reason}, which determines it. Leave it out.")


def load_grid(
    path_or_name: str | Path,
    steps: int,
    *,
    scheduler: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> Timesteps:
    """The times at which a pipeline's own scheduler takes `steps` steps: its `timestep_spacing`, offsets and all.

    Args:
        path_or_name: The folder of a pipeline, or a name on the hub.
        steps: `num_inference_steps`.
        scheduler: Entries of the scheduler's config to replace, such as {"timestep_spacing": "trailing"}.
        size: As in `load`: the times of some flows depend on it.

    Warns:
        UserWarning: If diffusers' own DDIM would step past these times; see docs/diffusers.md.

    Raises:
        RunError: If there is no scheduler, it is unsupported, or it has no times for that many steps.
        ParameterError: If `steps` is not an integer >= 1.
    """
    import_diffusers()
    folder = local_folder(path_or_name, False)
    config = _parts(folder)[1]
    if config is None:
        raise RunError(f"{folder}: this is a model without a scheduler, and so without times. Use unidiff.Native.")
    config = {**config, **(scheduler or {})}
    require_whole("steps", steps)
    options = times_options(folder, config, steps, size)
    return timesteps_of(config, steps, str(_inside(folder, "scheduler")), **options)


def scheduler_of(folder: Path) -> SchedulerModel | None:
    """What the scheduler of a pipeline says of its model; None for a model without one.

    Raises:
        RunError: If the scheduler is unsupported.
    """
    config = _parts(folder)[1]
    return None if config is None else read_scheduler(config, str(_inside(folder, "scheduler")))


def network_folder(folder: Path) -> Path:
    """Where the network of a pipeline, or of a model alone, is."""
    return _parts(folder)[0]


def _parts(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The network's folder and the scheduler's config, or None for a model alone."""
    index = folder / "model_index.json"
    if not os.path.isfile(index):
        if not os.path.isfile(folder / "config.json"):
            problem = "neither model_index.json (a pipeline) nor config.json (a model) exists"
            raise RunError(f"{folder}: {problem}. Pass the folder that save_pretrained wrote.")
        config = folder / "scheduler_config.json"
        return folder, read_json(config) if os.path.isfile(config) else None
    listed = read_json(index)
    pipeline = listed.get("_class_name")
    if (family := FAMILIES.get(str(pipeline))) is not None:
        return _inside(folder, family.part), read_json(_inside(folder, "scheduler") / "scheduler_config.json")
    present = [name for name, part in listed.items() if isinstance(part, list) and part and part[0]]
    names = [name for name in _NETWORKS if name in present]
    if len(names) != 1 or "scheduler" not in present:
        problem = f"the {pipeline} consists of {', '.join(present) or 'no parts'}"
        raise RunError(f"{folder}: {problem}; supported is a pipeline of a unet or a transformer, and a scheduler.")
    if conditions := [name for name in ("text_encoder", "image_encoder", "controlnet") if name in present]:
        problem = f"the {pipeline} has conditions other than classes ({', '.join(conditions)})"
        others = f"unconditional ones, those with classes, and {', '.join(FAMILIES)}"
        raise RunError(f"{folder}: {problem}; supported are {others}.")
    return _inside(folder, names[0]), read_json(_inside(folder, "scheduler") / "scheduler_config.json")


def _inside(folder: Path, part: str) -> Path:
    """Where a pipeline keeps a part: the first pipelines, such as google/ddpm-cifar10-32, keep all in one folder."""
    return folder / part if os.path.isdir(folder / part) else folder


def _check_codec(folder: Path, shape: tuple[int, ...]) -> None:
    """Raise a RunError if a pipeline's autoencoder has other latents than its network."""
    for name in ("vae", "vqvae"):
        if not os.path.isfile(folder / name / "config.json"):
            continue
        try:
            channels = read_layout(folder / name).latent_channels
        except DataError as error:
            raise RunError(str(error)) from error
        if channels != shape[0]:
            problem = f"the latents of its {name} have {channels} channels, and its network takes {shape[0]}"
            raise RunError(f"{folder}: {problem}. They do not belong to the same pipeline.")


def network_backbone(network: Any) -> DiffusersBackbone:
    """A model of diffusers as a backbone; a ParameterError if its config is unsupported."""
    config = network.config
    channels, size = config.in_channels, config.sample_size
    outputs = config.out_channels or channels
    learned_variance = outputs == 2 * channels
    allowed = f"in_channels = {channels}, or {2 * channels} with a learned variance"
    require(learned_variance or outputs == channels, "out_channels", outputs, allowed)
    pair = isinstance(size, (list, tuple)) and len(size) == 2 and all(map(is_whole, size))
    require(pair or is_whole(size), "sample_size", size, "an integer or two, [height, width]")
    shape = (channels, *size) if pair else (channels, size, size)
    if "num_embeds_ada_norm" in config:
        classes = config.num_embeds_ada_norm
        rows = network.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.num_embeddings
        return DiffusersBackbone(network, shape, classes, classes if rows > classes else None, learned_variance)
    # A learned embedding of the time has no values between two entries of the table.
    embedding, classes = config.time_embedding_type, config.class_embed_type
    require(embedding in ("positional", "fourier"), "time_embedding_type", embedding, "'positional' or 'fourier'")
    require(classes is None, "class_embed_type", classes, "null; set num_class_embeds alone")
    return DiffusersBackbone(network, shape, config.num_class_embeds, None, learned_variance)
