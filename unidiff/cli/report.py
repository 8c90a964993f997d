"""`unidiff report`: one HTML file about runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AsJson, ModelOptions
from unidiff.errors import ParameterError, RunError

__all__ = ["report"]


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or shipped:NAME.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="The file [default: <run>/report.html; report-<names>.html of several]."
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Measure what is missing, too: quality, solvers, copies, likelihood. Minutes."),
    ] = False,
    count: Annotated[int, typer.Option(help="With --full: samples of the evaluation and of the comparison.")] = 500,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another file, or measurements of --full.")
    ] = False,
    *,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file about runs: training, samples, quality, solvers, how to repeat. It needs no network."""
    from unidiff.cli.console import Console, say
    from unidiff.tasks.report import report as write

    try:
        with Console() as console:
            path = write(*runs, out=out, full=full, count=count, overwrite=overwrite, reporter=console, **vars(model))
    except ParameterError as error:
        raise RunError(str(error) if error.parameter == "runs" else f"--{error}") from error
    if as_json:
        print(json.dumps({"runs": [str(run) for run in runs], "file": str(path)}))
    else:
        say(f"{path}")
