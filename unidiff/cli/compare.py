"""`unidiff compare`: which solver, how many evaluations, how far from the truth?"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from unidiff.cli.options import (
    AllowImports,
    AsJson,
    Classes,
    Classifier,
    Device,
    Guidance,
    Images,
    Mask,
    Overrides,
)
from unidiff.errors import ParameterError, RecipeError, RunError

if TYPE_CHECKING:
    from unidiff.evaluation.comparison import Comparison
    from unidiff.evaluation.distances import Estimate
    from unidiff.tasks.comparison import SolverComparison
    from unidiff.tasks.generation import Conditioned, GenerationRun

__all__ = ["compare"]

_SOLVERS = (
    "Solvers, separated by commas: NAME[:NUMBER][@GRID[:NUMBER]]. A name may be cut short; the number sets `order` if "
    "there is one, else the first numeric parameter: ddim, ddim:0.5, ancestral@native."
)


def compare(
    what: Annotated[list[str], typer.Argument(metavar="RUN...|RECIPE", help="Run directories, or one recipe.")],
    solvers: Annotated[str | None, typer.Option(metavar="LIST", help=_SOLVERS)] = None,
    nfe: Annotated[
        str | None, typer.Option(metavar="LIST", help="Numbers of evaluations [default: 5,10,20,50,100].")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Samples of each solver [default: 500].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first sample [default: 0].")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the files go [default: runs/<name>].")] = None,
    classes: Classes = None,
    guidance: Guidance = None,
    classifier: Classifier = None,
    images: Images = None,
    mask: Mask = None,
    overrides: Overrides = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the comparison that is there.")] = False,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Compare solvers on trained runs or on an exact model: error, distance and time at equal evaluations."""
    from unidiff.cli.console import Console
    from unidiff.cli.guidance_options import ConditionOptions
    from unidiff.tasks.comparison_models import compare_recipe

    options = ConditionOptions.read(classes, guidance, classifier, images, mask)
    given = {"solvers": _words(solvers), "nfe": _numbers(nfe), "count": count, "seed": seed}
    changes = {name: value for name, value in given.items() if value is not None}
    comparing, name = _comparing(what, changes, overrides or [], allow_imports)
    directory = out or Path("runs") / name
    if not comparing.runs:
        options.reject("the model of this recipe is exact. Name run directories, or leave the option out.")
    comparing.check_output(directory, overwrite)
    console = Console()

    def condition(run: GenerationRun, count: int) -> Conditioned:
        default = None if images or mask else run.conditioned(count).examples
        return options.apply(run, device, allow_imports, console.notice, default)

    with console:
        found, facts = compare_recipe(
            comparing, console, device=device, allow_imports=allow_imports, condition=condition
        )
        facts.update(options.to_dict())
    result = comparing.write(found, facts, directory).content
    if as_json:
        print(json.dumps({"directory": str(directory), **result}))
        return
    _print_table(found)
    errors = ", ".join(f"{error:.1e} {label}".strip() for label, error in found.flow_errors.items())
    described = [facts["conditions"]] if facts.get("conditions") else []
    described += [] if guidance is None else [f"guidance {guidance:g}"]
    if described:
        print(f"conditions: {', '.join(described)}")
    if errors:
        print(f"rms: from the true flow of the first {found.followed} samples, which is known to about {errors}")
    if facts["reference"]:
        print(f"energy, sliced W2: from {facts['reference']}")
    if facts["features"]:
        print(f"features: energy distance in {facts['features']}")
    print(f"{directory}{os.sep}: compare.csv, compare.json, errors.png, samples.png")


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise RunError(f"--nfe {text}: write integers separated by commas, as in 5,10,20.") from None


def _comparing(
    what: list[str], changes: dict[str, Any], overrides: list[str], allow_imports: bool
) -> tuple[SolverComparison, str]:
    """The comparison that the words of the command line mean, and its name."""
    from unidiff.run.directory import RunDirectory
    from unidiff.run.task import load_recipe
    from unidiff.tasks.comparison import SolverComparison

    are_runs = [RunDirectory(Path(word)).exists() for word in what]
    try:
        if len(what) == 1 and not are_runs[0]:
            if Path(what[0]).is_dir():
                raise RunError(f"{what[0]}: this is no run directory. `unidiff run RECIPE --out {what[0]}` makes one.")
            task = load_recipe(what[0], overrides, allow_imports=allow_imports)
            if task.key != SolverComparison.key:
                problem = (
                    f"this recipe asks for {task.noun}, and lists no `solvers` to compare. To run it: `unidiff run"
                )
                raise RecipeError(f"{what[0]}: {problem} {what[0]}`.")
            loaded = cast(SolverComparison, task)
            return dataclasses.replace(loaded, **changes), Path(what[0]).stem
        for word, is_run in zip(what, are_runs):
            if not is_run:
                raise RunError(f"{word}: this is no run directory. Name directories of runs, or one recipe.")
        if overrides:
            raise RunError(f"--set {overrides[0]}: there is no recipe whose value this could replace.")
        if "solvers" not in changes:
            raise RunError("--solvers is missing: name what to compare, as in --solvers ddim,ancestral.")
        for place, times in Counter(Path(word).resolve() for word in what).items():
            if times > 1:
                raise RunError(f"{place}: this run is named {times} times. Name each run once.")
        name = "-".join(["compare", *(RunDirectory(Path(word)).name for word in what)])
        return SolverComparison(runs=tuple(map(Path, what)), **changes), name
    except ParameterError as error:  # of an option: a recipe's own mistake names its place
        raise RunError(f"--{error}") from error


def _print_table(found: Comparison) -> None:
    """Print the rows: with colours and rules in a terminal, else as aligned text."""
    several = len({row.model for row in found.rows}) > 1
    features = any(row.distances.features for row in found.rows)
    head = ["model"] * several + ["solver", "evaluations", "seconds", "rms", "order", "energy", "sliced W2"]
    table = [head + ["features"] * features]
    for line in found.lines:
        for row in line.rows:
            order = "" if line.order is None or row is not line.rows[-1] else f"{line.order:.2f}"
            numbers = [str(row.nfe), f"{row.seconds:.2f}", "" if row.rms is None else f"{row.rms:.2e}", order]
            distances = [_estimate(part) for part in row.distances[: 3 if features else 2]]
            table.append([line.model] * several + [line.label, *numbers, *distances])
    if found.baseline.energy is not None:
        distances = [_estimate(part) for part in found.baseline[: 3 if features else 2]]
        table.append([""] * several + ["true samples", "", "", "", "", *distances])
    if sys.stdout.isatty():
        from rich.console import Console as Terminal
        from rich.table import Table

        shown = Table(*table[0])
        for words in table[1:]:
            shown.add_row(*words)
        Terminal().print(shown, markup=False)
        return
    widths = [max(map(len, column)) for column in zip(*table)]
    for words in table:
        print("  ".join(word.ljust(width) for word, width in zip(words, widths)).rstrip())


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.4f} ± {estimate.error:.4f}"
