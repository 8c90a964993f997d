"""`unidiff run`, `resume` and `check`: run a recipe, continue its run, or only validate it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unidiff.cli import completion
from unidiff.cli.console import Console, say
from unidiff.cli.figure_options import FigureOptions
from unidiff.cli.last_resort import run_directory
from unidiff.cli.options import AllowImports, AsJson, ModelOptions, Overrides, SolverOptions
from unidiff.cli.signals import StopOnSignal
from unidiff.errors import RecipeError, RunError
from unidiff.machine import is_speaker
from unidiff.text import operand

if TYPE_CHECKING:
    from unidiff.run.task import Options, Task

__all__ = ["check", "resume", "run"]

Recipe = Annotated[
    str,
    typer.Argument(
        help="A recipe file, - for standard input, or the name of a shipped recipe.",
        autocompletion=completion.recipes,
    ),
]


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run directory [default: runs/<recipe>].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the directory.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    *,
    drawn: SolverOptions,
    model: ModelOptions,
    figures: FigureOptions,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: train a model, a classifier or an autoencoder; compare solvers; solve a PDE."""
    if resume and overwrite:
        raise RunError("--resume and --overwrite are mutually exclusive: continue the run, or replace it.")
    from unidiff.run.task import load_recipe

    directory = out or _directory(Path(recipe), resume)
    run_directory.set(directory)
    own = directory / "recipe.yaml"
    try:
        task = drawn.apply(load_recipe(recipe, overrides or [], allow_imports=model.allow_imports), overrides)
    except RecipeError as error:
        if not (resume and os.path.isfile(own)) or own == Path(recipe):
            raise
        raise RecipeError(f"{error}\nThe run has a recipe of its own: `unidiff run {own} --resume`.") from error
    changed = bool(overrides or drawn.words)
    if resume and (changed or not os.path.isfile(own) or os.path.realpath(own) != os.path.realpath(recipe)):
        task = task.resumed(directory, allow_imports=model.allow_imports)
    again = str(own) if recipe == "-" or recipe.startswith("/dev/") else recipe  # a pipe is read once
    words = ["run", again, *(word for change in overrides or () for word in ("--set", change)), *drawn.words]
    words += ["--out", str(out)] if out else []
    options: Options = {"resume": resume, "overwrite": overwrite, "dry_run": dry_run}
    with figures.written():
        _carry_out(task, directory, options, model, as_json, [*words, *figures.words, "--resume"])


def resume(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", autocompletion=completion.runs)],
    overrides: Overrides = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="With other numbers, by --set, or data that changed.")
    ] = False,
    *,
    model: ModelOptions,
    figures: FigureOptions,
    as_json: AsJson = False,
) -> None:
    """Continue a run: to its end, or with --extend further and with other numbers, which its manifest records."""
    from unidiff.run.directory import RunDirectory
    from unidiff.run.shipped import not_a_run
    from unidiff.run.task import load_recipe

    run_directory.set(directory)
    files = RunDirectory(directory)
    if not files.exists():
        raise not_a_run(directory)
    if overrides and not extend:
        sets = shlex.join(word for change in overrides for word in ("--set", change))
        raise RunError(f"--set: to continue with other numbers, use `unidiff resume {directory} --extend {sets}`.")
    task = load_recipe(files.recipe, overrides or [], allow_imports=model.allow_imports)
    options: Options = {"resume": True, "extend": extend}
    with figures.written():
        _carry_out(task, directory, options, model, as_json, ["resume", operand(directory), *figures.words])


def _carry_out(
    task: Task, directory: Path, options: Options, model: ModelOptions, as_json: bool, words: Sequence[str]
) -> None:
    """Run a task and print its outcome; if a signal stops it, the command that continues it, which `words` are."""
    from unidiff.training.loop import Interrupted

    stop = StopOnSignal()
    options |= {"device": model.device, "allow_imports": model.allow_imports, "stop": stop}
    try:
        with stop.listening(), Console() as console:
            outcome = task.run(directory, console, **options)
    except Interrupted as stopped:
        if is_speaker():
            say(f"Stopped after step {stopped.step}; everything is saved in {directory}.", error=True)
            extra = ["--device", model.device] if model.device != "auto" else []
            extra += ["--allow-imports"] if model.allow_imports else []
            say(f"Go on with: {shlex.join(['unidiff', *words[:2], *extra, *words[2:]])}", error=True)
            if as_json:
                print(json.dumps({"status": "interrupted", "step": stopped.step, "directory": str(directory)}))
        raise typer.Exit(stop.exit_code) from None
    if outcome is not None:
        print(json.dumps(outcome.to_dict())) if as_json else say(outcome.text())


def _directory(recipe: Path, resume: bool) -> Path:
    """The default run directory: runs/<name of the recipe>, or where the recipe.yaml of a resumed run is."""
    if recipe.name != "recipe.yaml":
        return Path("runs") / ("stdin" if str(recipe) == "-" else recipe.stem)
    return recipe.parent if resume else Path("runs") / recipe.absolute().parent.name


def check(
    recipe: Recipe,
    overrides: Overrides = None,
    *,
    drawn: SolverOptions,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Check a recipe and what it names, such as data, without downloads and training, and print it in full."""
    import torch

    from unidiff.run.shipped import locate
    from unidiff.run.task import load_recipe
    from unidiff.search_paths import Absent, expand, offline

    task = drawn.apply(load_recipe(recipe, overrides or [], allow_imports=allow_imports), overrides)
    missing = [str(path) for path in dict.fromkeys(task.builds_on) if not os.path.isdir(locate(expand(path, "path")))]
    absent = ""
    if not missing:
        with Console() as console, offline("unidiff check"):
            try:
                task.check_named(console, torch.device("cpu"), allow_imports)
            except Absent as error:
                absent = str(error)
    if as_json:
        unmet = {"missing": missing, "absent": absent}
        facts = {**task.facts(), **{name: value for name, value in unmet.items() if value}}
        print(json.dumps({"recipe": task.to_dict(), **facts}))
        return
    print(f"{task.to_yaml()}# {task.verdict()}")
    if missing:
        say(f"# It needs runs that are not there: {', '.join(missing)}.")
    if absent:
        say(f"# What it needs is not all here, and was not checked: {absent}")
