"""`unidiff run`: do what a recipe asks for."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.options import AllowImports, AsJson, Device, Overrides
from unidiff.errors import RecipeError, RunError

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
    """Do what a recipe asks for, into a directory: train a model, a classifier or a codec; compare solvers; solve."""
    if resume and overwrite:
        raise RunError("--resume and --overwrite exclude each other: go on with the run, or replace it.")
    from unidiff.cli.console import Console, is_speaker
    from unidiff.run.task import load_recipe
    from unidiff.training.loop import Interrupted

    directory = out or _directory(Path(recipe), resume)
    own = directory / "recipe.yaml"
    try:
        task = load_recipe(recipe, overrides or [], allow_imports=allow_imports)
    except RecipeError as error:
        if not (resume and own.is_file()) or own == Path(recipe):
            raise
        raise RecipeError(f"{error}\nThe run has a recipe of its own: `unidiff run {own} --resume`.") from error
    if resume and (overrides or not own.is_file() or own.resolve() != Path(recipe).resolve()):
        task = task.resumed(directory, allow_imports=allow_imports)
    try:
        with _StopOnSignal() as asked, Console() as console:
            outcome = task.run(
                directory,
                console,
                device=device,
                resume=resume,
                overwrite=overwrite,
                dry_run=dry_run,
                stop=asked,
                allow_imports=allow_imports,
            )
    except Interrupted as stopped:
        if is_speaker():
            print(f"Stopped after step {stopped.step}; everything is saved in {directory}.", file=sys.stderr)
            print(f"Go on with: {_again(recipe, overrides, out, device, allow_imports)}", file=sys.stderr)
            if as_json:
                print(json.dumps({"status": "interrupted", "step": stopped.step, "directory": str(directory)}))
        raise typer.Exit(130) from None
    if outcome is not None:
        print(json.dumps(outcome.to_dict()) if as_json else outcome.text())


def _directory(recipe: Path, resume: bool) -> Path:
    """Where a run goes if nothing is said: runs/<name of the recipe>. Resumed by its recipe.yaml, it stays in place."""
    if recipe.name != "recipe.yaml":
        return Path("runs") / recipe.stem
    return recipe.parent if resume else Path("runs") / recipe.absolute().parent.name


class _StopOnSignal:
    """Ctrl-C (or a polite kill) asks training to stop after the current step; a second one stops at once.

    So does the first while nobody asks yet: before the first step there is nothing to save.
    """

    def __init__(self) -> None:
        self._wanted = self._heard = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self._wanted or not self._heard:
            raise KeyboardInterrupt
        self._wanted = True

    def __call__(self) -> bool:
        self._heard = True
        return self._wanted


def _again(recipe: str, overrides: list[str] | None, out: Path | None, device: str, allow_imports: bool) -> str:
    words = ["unidiff", "run", recipe, *(word for override in overrides or [] for word in ("--set", override))]
    words += ["--out", str(out)] if out else []
    words += ["--device", device] if device != "auto" else []
    return shlex.join([*words, *(["--allow-imports"] if allow_imports else []), "--resume"])
