"""A run with what is used beside its model: control branches at a scale, ControlNets and a refiner of diffusers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from unidiff.errors import ParameterError
from unidiff.pretrained import is_saved
from unidiff.run.load import LoadOptions
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.tasks.sample_conditions import SampleConditions

__all__ = ["load_with_parts"]


def load_with_parts(
    directory: str | Path,
    chosen: SampleConditions | None,
    overrides: Sequence[str] = (),
    **options: Unpack[LoadOptions],
) -> GenerationRun:
    """Read a run or a pipeline as `load_generation` does, with the parts that the conditions of its samples name.

    Raises:
        ParameterError: If there is no use for a part.
    """
    parts = {} if chosen is None else chosen.parts
    if is_saved(directory):
        own = [f"{name}={json.dumps(value)}" for name, value in parts.items()]
        return load_generation(directory, [*overrides, *own], **options)
    for name in parts:
        if name != "control_scale":
            raise ParameterError(name, f"{directory} is not a pipeline that diffusers saved. Leave it out.")
    run = load_generation(directory, overrides, **options)
    if not parts:
        return run
    network: Any = run.model.backbone
    if not hasattr(network, "with_scales"):
        raise ParameterError("control_scale", f"{directory} has no control branch. Leave it out.")
    try:
        network = network.with_scales(parts["control_scale"])
    except ParameterError as error:
        raise ParameterError("control_scale", error.problem) from error
    return replace(run, model=run.model.with_backbone(network))
