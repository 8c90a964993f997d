"""`unidiff compare`: which solver, how many evaluations, how far from the truth?"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from unidiff.cli import completion
from unidiff.cli.console import Console, say
from unidiff.cli.figure_options import FigureOptions
from unidiff.cli.last_resort import run_directory
from unidiff.cli.options import (
    AsJson,
    GuidanceOptions,
    ImageOptions,
    ModelOptions,
    Settings,
    option_error,
    option_of,
    sample_conditions,
    split_conditions,
)
from unidiff.cli.pipeline_options import PipelineOptions
from unidiff.cli.solver_options import StepsList, steps_or_nfe
from unidiff.errors import ParameterError, RecipeError, RunError
from unidiff.text import aligned, clean, joined_name

if TYPE_CHECKING:
    from unidiff.evaluation.comparison import Comparison
    from unidiff.evaluation.distances import Estimate
    from unidiff.tasks.comparison import SolverComparison

__all__ = ["compare"]

_SOLVERS = (
    "Solvers, separated by commas: NAME[:NUMBER][@GRID[:NUMBER]]. Names may be abbreviated; the number sets `order` if "
    "there is one, else the first numeric parameter: ddim, ddim:0.5, ancestral@native [default, for runs: "
    "ddim,ancestral,exponentialadams]."
)


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...|RECIPE",
            help="Run directories, shipped:NAME; or one recipe.",
            autocompletion=completion.runs,
        ),
    ],
    solvers: Annotated[str | None, typer.Option("--solvers", "--solver", metavar="LIST", help=_SOLVERS)] = None,
    nfe: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of function evaluations [default: 5,10,20,50,100].")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Samples per solver [default: 500].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first sample [default: 0].")] = None,
    out: Annotated[Path | None, typer.Option(help="Output directory [default: runs/<name>].")] = None,
    *,
    steps: StepsList = None,
    guidance: GuidanceOptions,
    images: ImageOptions,
    pipeline: PipelineOptions,
    overrides: Settings = None,
    model: ModelOptions,
    figures: FigureOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing comparison.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare solvers on trained runs or on an exact model: error, distance and time at equal evaluations or steps."""
    from unidiff.tasks.comparison import SolverComparison
    from unidiff.tasks.sample_conditions import SampleConditions
    from unidiff.training.device import resolve_device

    names = None if solvers is None else tuple(filter(None, map(str.strip, solvers.split(","))))
    values = {"solvers": names, **steps_or_nfe(steps, nfe, SolverComparison.nfe), "count": count, "seed": seed}
    changes = {name: value for name, value in values.items() if value is not None}
    own, named = split_conditions(overrides)
    task, name = _task(what, changes, own, model.allow_imports)
    named |= pipeline.values
    directory, chosen = out or Path("runs") / name, pipeline.joined(sample_conditions(guidance, images, named))
    run_directory.set(directory)
    if changed := {name: value for name, value in vars(chosen).items() if value != getattr(SampleConditions(), name)}:
        if not task.runs:
            option, remedy = option_of(next(iter(changed))), "Pass run directories, or leave it out."
            raise RunError(f"{option}: this recipe compares solvers on an exact model, without this option. {remedy}")
        task = dataclasses.replace(
            task, conditions=dataclasses.replace(task.conditions or SampleConditions(), **changed)
        )
    device = resolve_device(model.device)
    with figures.written(), Console() as console, task.reserved(directory, overwrite):
        try:
            outcome = task.compute(directory, console, device, model.allow_imports)
        except ParameterError as error:
            if not error.parameter.startswith("conditions."):
                raise
            raise option_error(error, guidance, images, named, vars(pipeline)) from error
    if as_json:
        print(json.dumps({"directory": str(directory), **outcome.content}))
        return
    comparison, content = outcome.comparison, outcome.content
    _print_table(comparison)
    scale = "" if content.get("guidance") is None else f"guidance {content['guidance']:g}"
    if conditions := [f"{words}" for words in (content.get("conditions"), scale) if words]:
        say(f"conditions: {', '.join(conditions)}")
    if errors := ", ".join(f"{error:.1e} {label}".strip() for label, error in comparison.flow_errors.items()):
        say(f"rms: from the true flow of the first {comparison.followed} samples, which is known to about {errors}")
    if content["reference"]:
        say(f"energy, sliced W2: from {content['reference']}")
    if content["features"]:
        say(f"features: energy distance in {content['features']}")
    say(f"{directory}{os.sep}: {', '.join(sorted(outcome.files))}")


def _task(
    what: list[str], changes: dict[str, Any], overrides: list[str], allow_imports: bool
) -> tuple[SolverComparison, str]:
    """The comparison that the command line describes, and its name."""
    from unidiff.pretrained import is_saved
    from unidiff.run.directory import RunDirectory
    from unidiff.run.shipped import locate
    from unidiff.run.task import load_recipe
    from unidiff.tasks.comparison import RUN_SOLVERS, SolverComparison

    try:
        if len(what) == 1 and not os.path.isdir(locate(what[0])) and not is_saved(what[0]):
            task = load_recipe(what[0], overrides, allow_imports=allow_imports)
            if task.key != SolverComparison.key:
                problem = f"this recipe is for {task.noun} and has no `solvers` to compare"
                raise RecipeError(f"{what[0]}: {problem}. To run it: `unidiff run {what[0]}`.")
            return dataclasses.replace(cast(SolverComparison, task), **changes), Path(what[0]).stem
        runs = [RunDirectory(Path(word)) for word in what]
        for run in runs:
            if not run.exists() and not is_saved(run.path):
                raise RunError(f"{run.path}: not a run directory. Pass run directories, or one recipe.")
        if overrides:
            raise RunError(f"--set {overrides[0]}: this option changes a recipe, and run directories were passed.")
        changes = {"solvers": RUN_SOLVERS, **changes}
        task = SolverComparison(runs=tuple(map(Path, what)), **changes)
        return task, joined_name(["compare", *(run.name for run in runs)])
    except ParameterError as error:  # of an option: a mistake in a recipe is reported with its position
        raise RunError(str(error) if error.parameter == "runs" else f"--{error}") from error


def _print_table(comparison: Comparison) -> None:
    """Print the rows: with colours and rules in a terminal, else as aligned text."""
    several = len({row.model for row in comparison.rows}) > 1
    measures = 3 if any(row.distances.features for row in comparison.rows) else 2
    head = ["model", "solver", "evaluations", "seconds", "rms", "order", "energy", "sliced W2", "features"]
    table = [head[: 6 + measures]]
    for line in comparison.lines:
        for row in line.rows:
            order = "" if line.order is None or row is not line.rows[-1] else f"{line.order:.2f}"
            numbers = [str(row.nfe), f"{row.seconds:.2f}", "" if row.rms is None else f"{row.rms:.2e}", order]
            table.append([line.model, line.label, *numbers, *map(_estimate, row.distances[:measures])])
    if comparison.baseline.energy is not None:
        table.append(["", "true samples", *[""] * 4, *map(_estimate, comparison.baseline[:measures])])
    if not several:
        table = [words[1:] for words in table]
    if sys.stdout.isatty():
        from rich.console import Console as Terminal
        from rich.table import Table

        shown = Table()
        for title in table[0]:  # names tell the rows apart: they are folded, never cut
            name = title in ("model", "solver")
            shown.add_column(title, justify="left" if name else "right", overflow="fold", no_wrap=not name)
        for words in table[1:]:
            shown.add_row(*map(clean, words))
        Terminal().print(shown, markup=False)
    else:
        say(aligned(table, 1 + several))


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.4f} +- {estimate.error:.4f}"
