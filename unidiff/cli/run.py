"""`unidiff run`: train a recipe and draw samples."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.options import AllowImports, AsJson, Device, Overrides
from unidiff.errors import RunError

__all__ = ["run"]


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run directory [default: runs/<recipe>].")] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the directory.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the directory.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Train a recipe and draw samples, into a run directory."""
    if resume and overwrite:
        raise RunError("--resume and --overwrite exclude each other: go on with the run, or replace it.")
    from unidiff.cli.console import Console
    from unidiff.recipe import load_recipe
    from unidiff.run.execute import execute, resumed_recipe
    from unidiff.training.loop import Interrupted

    loaded = load_recipe(recipe, overrides or [], allow_imports=allow_imports)
    directory = out or Path("runs") / (Path(recipe).parent.name if Path(recipe).name == "recipe.yaml" else Path(recipe).stem)
    if resume:
        loaded = resumed_recipe(directory, loaded, allow_imports=allow_imports)
    asked = _StopOnSignal()
    try:
        with Console() as console:
            summary = execute(
                loaded,
                directory,
                console,
                device=device,
                resume=resume,
                overwrite=overwrite,
                dry_run=dry_run,
                stop=asked,
            )
    except Interrupted as stopped:
        print(f"Stopped after step {stopped.step}; everything is saved in {directory}.", file=sys.stderr)
        print(f"Go on with: {_again(recipe, overrides, out)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if summary:
        _print(summary, as_json)


class _StopOnSignal:
    """Ctrl-C (or a polite kill) asks training to stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.default_int_handler)
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


def _again(recipe: str, overrides: list[str] | None, out: Path | None) -> str:
    words = ["unidiff", "run", recipe, *(word for override in overrides or [] for word in ("--set", f"'{override}'"))]
    return " ".join([*words, *(["--out", str(out)] if out else []), "--resume"])


def _print(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    data = summary["data"]
    rows = {
        "data": f"{data['name']}, {data['count']} samples of shape {tuple(data['shape'])}",
        "note": data["stand_in"],
        "network": f"{summary['parameters']:,} parameters, {summary['precision']} on {summary['device']}",
        "training": f"{summary['training_seconds']:.0f} s, final loss {summary['loss']:.4f}"
        if "loss" in summary
        else None,
        "sampling": f"{summary['sampling_seconds']:.0f} s, {summary['nfe']} evaluations per sample"
        if "nfe" in summary
        else None,
        "samples": summary.get("samples"),
        "trajectory": summary.get("trajectory"),
        "run": f"{summary['directory']}{os.sep}" + (" (dry run: nothing was written)" if "samples" not in summary else ""),
    }
    for name, value in rows.items():
        if value:
            print(f"{name:>10}  {value}")
