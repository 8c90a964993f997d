"""The options of what is used beside a model: control branches at a scale, ControlNets and a refiner of diffusers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unidiff.errors import RunError

if TYPE_CHECKING:
    from unidiff.tasks.sample_conditions import SampleConditions

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
        typer.Option(
            metavar="S", help="Scale of control branches, of all or one for each; 0 is without them [default: 1]."
        ),
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

    def joined(self, chosen: SampleConditions) -> SampleConditions:
        """The conditions of samples with these parts."""
        return dataclasses.replace(
            chosen,
            control=tuple(self.control or ()),
            control_scale=tuple(self.control_scale or ()),
            refiner=self.refiner,
            refiner_from=self.refiner_from,
        )
