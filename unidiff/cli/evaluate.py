"""`unidiff evaluate`: how good are samples, beside real data?"""

from __future__ import annotations

import dataclasses
import json
import os
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
    sample_conditions,
    split_conditions,
)
from unidiff.cli.pipeline_options import PipelineOptions
from unidiff.cli.solver_options import StepsList, steps_or_nfe
from unidiff.errors import ParameterError, RecipeError, RunError
from unidiff.text import aligned, joined_name

if TYPE_CHECKING:
    from unidiff.tasks.evaluation import EvaluationTask

__all__ = ["evaluate"]


def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...|RECIPE",
            help="Runs, folders of images, .npy files; or one recipe.",
            autocompletion=completion.runs,
        ),
    ],
    count: Annotated[int | None, typer.Option(help="Samples of each [default: 2000].")] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Real data of folders and files: mnist, ... [default: the runs']."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="digits, mnist, photos, pixels or a classifier's run [default: by the data].")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the reference: test or train [default: test].")] = None,
    bits: Annotated[int | None, typer.Option(metavar="N", help="Also bits/dim of N test samples.")] = None,
    solvers: Annotated[
        str | None,
        typer.Option("--solvers", "--solver", metavar="LIST", help="As in compare [default: the run's own]."),
    ] = None,
    nfe: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of function evaluations [default: the run's own].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first sample [default: 0].")] = None,
    out: Annotated[Path | None, typer.Option(help="Output directory [default: runs/evaluate-<names>].")] = None,
    *,
    steps: StepsList = None,
    guidance: GuidanceOptions,
    images: ImageOptions,
    pipeline: PipelineOptions,
    overrides: Settings = None,
    model: ModelOptions,
    figures: FigureOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing evaluation.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate samples of trained runs, folders or arrays: distance, coverage, classes, copies, beside real data."""
    if as_csv and as_json:
        raise RunError("--csv and --json are mutually exclusive. Both are in the output directory.")
    from unidiff.tasks.evaluation import EvaluationTask
    from unidiff.tasks.sample_conditions import SampleConditions
    from unidiff.training.device import resolve_device

    names = None if solvers is None else tuple(filter(None, map(str.strip, solvers.split(","))))
    values: dict[str, Any] = {"count": count, "features": features, "split": split, "bits": bits, "seed": seed}
    values |= {"solvers": names, **steps_or_nfe(steps, nfe, EvaluationTask.nfe)}
    own, named = split_conditions(overrides)
    own += [] if data is None else [f"data={data}"]
    changes = {name: value for name, value in values.items() if value is not None}
    try:
        task, name = _task(what, changes, own, model.allow_imports)
    except RecipeError as error:
        if data is None:
            raise
        hint = ""
        if os.path.lexists(data):
            name = "{type: ArrayFile, path: %s}" if data.endswith(".npy") else "{type: ImageFolder, root: %s}"
            hint = f"\nFor files of your own: --data '{name % data}'; `unidiff describe ImageFolder` says more."
        raise RunError(f"{error}".replace(f"--set data={data}: data: ", f"--data {data}: ") + hint) from error
    named |= pipeline.values
    directory, chosen = out or Path("runs") / name, pipeline.joined(sample_conditions(guidance, images, named))
    run_directory.set(directory)
    if changed := {name: value for name, value in vars(chosen).items() if value != getattr(SampleConditions(), name)}:
        conditions = dataclasses.replace(task.conditions or SampleConditions(), **changed)
        task = dataclasses.replace(task, conditions=conditions)
    device = resolve_device(model.device)
    with figures.written(), Console() as console, task.reserved(directory, overwrite):
        try:
            outcome = task.compute(directory, console, device, model.allow_imports)
        except ParameterError as error:
            if error.parameter.startswith("conditions."):
                raise option_error(error, guidance, images, named, vars(pipeline)) from error
            raise RunError(f"--{error}") from error
    if (evaluation := outcome.evaluation) is None:
        return  # of several processes the first one speaks
    if as_json:
        print(json.dumps({"directory": str(directory), **outcome.content}))
        return
    if as_csv:
        print(outcome.table, end="")
        return
    facts = evaluation.facts
    for table in evaluation.tables():
        say(f"{aligned(table)}\n")
    network, reference, floor = facts["features"], facts["reference"], facts["floor"]
    pinned = "" if network["digest"] is None else f", {network['digest'][:19]}"
    say(f"features: {network['size']} of {network['network']}{pinned}")
    say(f"reference: {reference['data']}, {reference['count']} samples")
    say(f"real data: {floor['data']}, {floor['count']} samples; +- is one standard error")
    say(f"{directory}{os.sep}: {', '.join(sorted(outcome.files))}")


def _task(
    what: list[str], changes: dict[str, Any], overrides: list[str], allow_imports: bool
) -> tuple[EvaluationTask, str]:
    """The evaluation that the command line describes, and its name."""
    from unidiff.recipe.shipped import shipped_recipes
    from unidiff.run.shipped import locate
    from unidiff.run.task import load_recipe, recipe_as_it_was
    from unidiff.tasks.evaluation import EvaluationTask

    try:
        if len(what) == 1 and (what[0].endswith((".yaml", ".yml")) or what[0] == "-" or what[0] in shipped_recipes()):
            task = load_recipe(what[0], overrides, allow_imports=allow_imports)
            if task.key != EvaluationTask.key:
                problem = f"this recipe is for {task.noun} and has nothing to `evaluate`"
                raise RecipeError(f"{what[0]}: {problem}. To run it: `unidiff run {what[0]}`.")
            return dataclasses.replace(cast(EvaluationTask, task), **changes), Path(what[0]).stem
        repeated = next((word for number, word in enumerate(what) if word in what[:number]), None)
        if repeated is not None:
            raise RunError(f"{repeated}: this is named twice. Name each run, folder and file once.")
        text = json.dumps({"evaluate": what})
        task = recipe_as_it_was(Path("command line"), text, allow_imports, overrides)
        name = joined_name(["evaluate", *(locate(word).absolute().name.removesuffix(".npy") for word in what)])
        return dataclasses.replace(cast(EvaluationTask, task), **changes), name
    except ParameterError as error:  # of an option: a mistake in a recipe is reported with its position
        raise RunError(str(error) if error.parameter == "evaluate" else f"--{error}") from error
