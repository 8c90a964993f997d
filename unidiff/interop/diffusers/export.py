"""A trained run as a pipeline that plain diffusers loads."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.interop.diffusers.files import WEIGHTS
from unidiff.interop.diffusers.kinds import Kind, kind_of
from unidiff.interop.diffusers.native import MODEL, Native, write_native
from unidiff.interop.diffusers.shift import told_the_index
from unidiff.interop.diffusers.tables import table_config
from unidiff.run.load import Run, load

__all__ = ["Exported", "export"]


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


def export(run: Run | str | Path, directory: str | Path, *, overwrite: bool = False) -> Exported:
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
    run = run if isinstance(run, Run) else load(run, device="cpu")
    model, data = run.denoiser, run.recipe.data
    try:
        kind = kind_of(model.backbone)
        _ = kind.exported(model.backbone)
    except ParameterError as error:
        raise RunError(f"{run.directory}: it cannot be exported: {error.problem}") from error
    notices: list[str] = []
    table: dict[str, Any] | None = None
    pipeline: str | None = None
    try:
        pipeline = _pipeline(kind, model.backbone, False)
        table = table_config(model.process, model.parameterization)
    except ParameterError as error:
        pipeline = None
        notices.append(f"Only the network was written, and no pipeline: {error.problem}. `load` reads it back whole.")
    if pipeline == "DDPMPipeline" and model.classes is not None:
        notices.append(
            "DDPMPipeline names no classes to its network: call its unet with class_labels, from 0; "
            f"{model.classes} is no class."
        )
    network = model.backbone if pipeline is None else told_the_index(model.backbone)
    native = Native(
        shape=data.shape,
        process=run.recipe.process,
        parameterization=model.parameterization,
        backbone=run.recipe.backbone,
    )
    with _written_whole(place) as folder:
        _write_network(folder / kind.folder, kind, network)
        if pipeline is not None and table is not None:
            scheduler = "DDPMScheduler" if pipeline == "DDPMPipeline" else "DDIMScheduler"
            _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": scheduler, **table})
            parts = {kind.folder: ["diffusers", kind.name], "scheduler": ["diffusers", scheduler]}
            _write_json(folder / "model_index.json", {"_class_name": pipeline, **parts})
        ours, theirs = model.backbone.state_dict(), network.state_dict()
        changed = {name: value.cpu() for name, value in ours.items() if not torch.equal(value, theirs[name])}
        write_native(folder, native, run.recipe.to_yaml(), changed, model.process.measured())
    return Exported(place, pipeline, tuple(notices))
