"""Options that several commands share, written once."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AllowImports", "AsJson", "Device", "Overrides"]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe: training.steps=20. Repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
AllowImports = Annotated[
    bool, typer.Option("--allow-imports", help="Accept classes from outside unidiff; this runs their code.")
]
