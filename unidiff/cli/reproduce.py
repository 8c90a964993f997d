"""`unidiff reproduce`: the figures of the source texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.console import Console, say
from unidiff.cli.figure_options import FigureOptions
from unidiff.cli.grouped import AsJson
from unidiff.cli.last_resort import run_directory
from unidiff.errors import ParameterError, RunError, RunFailed
from unidiff.figures.registry import FIGURES, figure_named
from unidiff.text import aligned

__all__ = ["reproduce"]


def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="FIGURE", help="Such as higham-4; without one they are listed.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Draw all figures.")] = False,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run directory, shipped:NAME or exact:digits [default: shipped]."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples and steps.")] = False,
    out: Annotated[Path, typer.Option(help="Output directory.")] = Path("runs/reproduce"),
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    *,
    figures: FigureOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace figures that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the figures of the papers, or draw them, each with the number that it must show."""
    if every and names:
        raise RunError(f"--all: it draws all figures. Leave it out, or {names[0]}.")
    if not (every or names):
        _list(as_json)
        return
    chosen = list(FIGURES.values()) if every else [figure_named(name) for name in dict.fromkeys(names or ())]
    from unidiff.figures.reproduce import draw_figures

    run_directory.set(out)
    done, missed = [], []
    with figures.written(), Console() as console:
        try:
            options: dict[str, Any] = {"quick": quick, "seed": seed, "overwrite": overwrite}
            for drawn in draw_figures(chosen, run, out, **options, lenient=every, notice=console.notice):
                done.append(drawn.to_dict())
                holds = "" if drawn.findings.holds else f" It must show: {drawn.figure.shows}. {drawn.findings.bound}"
                if holds:
                    missed.append(drawn.figure.name)
                if not as_json:
                    say(f"{drawn.image}: {drawn.findings.summary}.{holds}")
                console.progress("reproduce", len(done), len(chosen))
        except ParameterError as error:
            raise RunError(str(error) if error.parameter == "name" else f"--{error}") from error
    if as_json:
        print(json.dumps({"directory": str(out), "figures": done}))
    if missed:
        which = f"{', '.join(missed)} {'does' if len(missed) == 1 else 'do'}"
        raise RunFailed(f"{out}: the figures are written, but {which} not show what must be seen.")


def _list(as_json: bool) -> None:
    """The figures, with what each must show."""
    if as_json:
        rows = [
            {"figure": f.name, "source": f.source, "must_show": f.shows, "script": f.file, "seconds": f.seconds}
            | {"quick_seconds": f.quick_seconds, "model": f.model or None}
            for f in FIGURES.values()
        ]
        print(json.dumps({"figures": rows}))
        return
    table = [["figure", "what it must show", "seconds", "--quick"]]
    table += [[f.name, f.shows, str(f.seconds), str(f.quick_seconds)] for f in FIGURES.values()]
    say(aligned(table, left=2))
    say("\nunidiff reproduce FIGURE... draws some, --all draws all. Seconds are of one slow core.")
