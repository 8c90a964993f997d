"""The options of what diffusers saves apart from a pipeline: ControlNets and a refiner."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from unidiff.errors import RunError

__all__ = ["PipelineOptions"]


@dataclass(frozen=True)
class PipelineOptions:
    """ControlNets with their images, and a refiner.

    Raises:
        RunError: If several ControlNets have not one image each.
    """

    control: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="A ControlNet for a pipeline of diffusers, or OWNER/NAME; repeatable."),
    ] = None
    control_image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its image; of several ControlNets one each, in their order."),
    ] = None
    control_scale: Annotated[
        list[float] | None,
        typer.Option(metavar="S", help="Its scale, of all or one for each; 0 is the pipeline without [default: 1]."),
    ] = None
    refiner: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="A pipeline that takes over near the data, as SDXL's refiner does."),
    ] = None
    refiner_from: Annotated[
        float | None, typer.Option(metavar="T", help="From which share of the noisy times on [default: 0.2].")
    ] = None

    def __post_init__(self) -> None:
        controls, images = len(self.control or ()), len(self.control_image or ())
        if controls > 1 and images != controls:
            raise RunError(f"--control-image: {controls} ControlNets need {controls} images, one each, got {images}.")

    @property
    def files(self) -> list[Path]:
        """The images."""
        return self.control_image or []

    @property
    def values(self) -> dict[str, str]:
        """The images as conditions by name, as `--set cond.NAME=VALUE` has them."""
        files = [str(path) for path in self.files]
        if len(self.control or ()) > 1:
            names = ["control", *(f"control_{number}" for number in range(2, len(files) + 1))]
            return {name: json.dumps(file) for name, file in zip(names, files)}
        return {"control": json.dumps(files[0] if len(files) == 1 else files)} if files else {}

    def overrides(self, run: Path) -> list[str]:
        """The options as changes of what `unidiff.load` reads of a saved pipeline.

        Raises:
            RunError: If the run is not a pipeline that diffusers saved.
        """
        names = ("control", "control_scale", "refiner", "refiner_from")
        written = {name: value for name in names if (value := getattr(self, name)) not in (None, [])}
        if not written:
            return []
        from unidiff.pretrained import is_saved

        if not is_saved(run):
            option = f"--{next(iter(written)).replace('_', '-')}"
            raise RunError(f"{option}: {run} is not a pipeline that diffusers saved. Leave it out.")
        return [f"{name}={json.dumps(value)}" for name, value in written.items()]
