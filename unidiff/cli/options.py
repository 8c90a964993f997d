"""Options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllowImports",
    "Array",
    "AsJson",
    "Classes",
    "Classifier",
    "Device",
    "Guidance",
    "Images",
    "Mask",
    "Overrides",
    "Picture",
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe: training.steps=20. Repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
AllowImports = Annotated[
    bool, typer.Option("--allow-imports", help="Accept classes from outside unidiff; this runs their code.")
]
Array = Annotated[
    Path | None,
    typer.Option("--array", metavar="FILE.npy", help="Write the samples: float32 (N, *shape) in [-1, 1]."),
]
Picture = Annotated[Path | None, typer.Option("--out", metavar="FILE.png", help="Write the image of the samples here.")]
Classes = Annotated[
    str | None, typer.Option("--class", metavar="K,...", help="Classes to draw, for a model trained with classes.")
]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Guidance scale; 1 is the plain conditional model.")]
Classifier = Annotated[
    Path | None, typer.Option("--classifier", help="The run of a classifier, for --guidance by its gradients.")
]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", metavar="FILE", help="Image to condition on, repeatable [default: test images]."),
]
Mask = Annotated[
    Path | None,
    typer.Option("--mask", metavar="FILE", help="With --image, for a model trained with masks: white is drawn."),
]
