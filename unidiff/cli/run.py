"""`unidiff run` and `unidiff check`: run a recipe, or only validate it."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.console import Console, is_speaker, say
from unidiff.cli.last_resort import run_directory
from unidiff.cli.options import AllowImports, AsJson, ModelOptions, Overrides
from unidiff.errors import RecipeError, RunError

__all__ = ["check", "run"]

Recipe = Annotated[str, typer.Argument(help="A recipe file, - for standard input, or the name of a shipped recipe.")]


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run directory [default: runs/<recipe>].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the directory.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    *,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: train a model, a classifier or an autoencoder; compare solvers; solve a PDE."""
    if resume and overwrite:
        raise RunError("--resume and --overwrite are mutually exclusive: continue the run, or replace it.")
    from unidiff.run.task import load_recipe
    from unidiff.training.loop import Interrupted

    directory = out or _directory(Path(recipe), resume)
    run_directory.set(directory)
    own = directory / "recipe.yaml"
    try:
        task = load_recipe(recipe, overrides or [], allow_imports=model.allow_imports)
    except RecipeError as error:
        if not (resume and own.is_file()) or own == Path(recipe):
            raise
        raise RecipeError(f"{error}\nThe run has a recipe of its own: `unidiff run {own} --resume`.") from error
    if resume and (overrides or not own.is_file() or own.resolve() != Path(recipe).resolve()):
        task = task.resumed(directory, allow_imports=model.allow_imports)
    try:
        with _stop_on_signal() as stop, Console() as console:
            outcome = task.run(
                directory,
                console,
                device=model.device,
                resume=resume,
                overwrite=overwrite,
                dry_run=dry_run,
                stop=stop,
                allow_imports=model.allow_imports,
            )
    except Interrupted as stopped:
        if is_speaker():
            say(f"Stopped after step {stopped.step}; everything is saved in {directory}.", error=True)
            again = str(own) if recipe == "-" or recipe.startswith("/dev/") else recipe  # a pipe is read once
            words = ["unidiff", "run", again, *(word for change in overrides or () for word in ("--set", change))]
            words += ["--out", str(out)] if out else []
            words += ["--device", model.device] if model.device != "auto" else []
            words += ["--allow-imports"] if model.allow_imports else []
            say(f"Go on with: {shlex.join([*words, '--resume'])}", error=True)
            if as_json:
                print(json.dumps({"status": "interrupted", "step": stopped.step, "directory": str(directory)}))
        raise typer.Exit(130) from None
    if outcome is not None:
        print(json.dumps(outcome.to_dict())) if as_json else say(outcome.text())


def _directory(recipe: Path, resume: bool) -> Path:
    """The default run directory: runs/<name of the recipe>, or where the recipe.yaml of a resumed run is."""
    if recipe.name != "recipe.yaml":
        return Path("runs") / ("stdin" if str(recipe) == "-" else recipe.stem)
    return recipe.parent if resume else Path("runs") / recipe.absolute().parent.name


def check(
    recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False, allow_imports: AllowImports = False
) -> None:
    """Check a recipe without reading data or building the network, and print it in full."""
    from unidiff.run.task import load_recipe

    task = load_recipe(recipe, overrides or [], allow_imports=allow_imports)
    missing = [str(path) for path in dict.fromkeys(task.builds_on) if not path.is_dir()]
    if as_json:
        print(json.dumps({"recipe": task.to_dict(), **task.facts(), **({"missing": missing} if missing else {})}))
        return
    print(f"{task.to_yaml()}# {task.verdict()}")
    if missing:
        print(f"# It needs runs that are not there: {', '.join(missing)}.")


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C (or SIGTERM) into a request to stop after the current step, which the function returned reports.

    A second signal interrupts at once. So does the first before that function is called: there is nothing to save yet.
    """
    polled = stopping = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal stopping
        if stopping or not polled:
            raise KeyboardInterrupt
        stopping = True

    def stop() -> bool:
        nonlocal polled
        polled = True
        return stopping

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
