"""The files of a comparison: a table, the numbers, two pictures."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unidiff import plot
from unidiff.evaluation.comparison import Comparison, Line
from unidiff.run import results
from unidiff.run.directory import environment

if TYPE_CHECKING:
    from unidiff.tasks.comparison import SolverComparison

__all__ = ["ComparisonOutcome", "check_place", "write_comparison"]

_TABLE, _RESULT, _ERRORS, _SAMPLES = "compare.csv", "compare.json", "errors.png", "samples.png"
_SIZE = 20_000_000  # bytes of all files, about; the pictures are most of it


@dataclass(frozen=True)
class ComparisonOutcome:
    """What was compared.

    Attributes:
        status: "finished" or "dry run".
        directory: Where the files are.
        result: The content of compare.json.
        comparison: What came of it; None for a dry run.
    """

    status: str
    directory: str
    result: dict[str, Any]
    comparison: Comparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """See `Outcome.to_dict`."""
        return {"status": self.status, "directory": self.directory, **self.result}

    def text(self) -> str:
        """The table of compare.csv, and the files."""
        if self.comparison is None:
            return f"{self.directory}{os.sep} (dry run: nothing was written)"
        files = ", ".join((_TABLE, _RESULT, _ERRORS, _SAMPLES))
        return f"{self.comparison.to_csv().rstrip()}\n{self.directory}{os.sep}: {files}"


def check_place(directory: Path, overwrite: bool) -> None:
    """Refuse a directory that a comparison must not or cannot use; nothing is changed.

    Raises:
        RunError: If the place is taken or not writable.
    """
    results.check_place(directory, _RESULT, "comparison", overwrite, _SIZE)


def write_comparison(
    task: SolverComparison, found: Comparison, facts: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """Write a comparison: compare.csv, compare.json, errors.png, samples.png, all of them or none.

    Args:
        task: The recipe.
        found: What came of it.
        facts: What it depends on beside the recipe.
        directory: Where to; the files of an older comparison there are replaced.

    Returns:
        The content of compare.json.

    Raises:
        RunFailed: If they cannot be written.
    """
    result = {"recipe": task.to_dict(), **facts, **found.to_dict(), "environment": environment()}
    with results.written_whole(directory, (_TABLE, _ERRORS, _SAMPLES, _RESULT)) as folder:
        (folder / _TABLE).write_text(found.to_csv())
        (folder / _RESULT).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        caption = _caption(task, found, facts)
        _plot_errors(found, folder / _ERRORS, caption)
        _plot_samples(task, found, folder / _SAMPLES, caption)
    return result


def _caption(task: SolverComparison, found: Comparison, facts: dict[str, Any]) -> str:
    what = ", ".join(str(run) for run in task.runs) or f"Exact model of {task.data!r} with {task.process!r}"
    text = f"{what}. {found.count} samples, seeds from {task.seed}."
    return f"{text}\n{facts['stand_in']}" if facts.get("stand_in") else text


def _name(line: Line) -> str:
    return f"{line.model}: {line.label}" if line.model else line.label


def _plot_errors(found: Comparison, path: Path, caption: str) -> None:
    flow, energy = [], []
    for line in found.lines:
        order = "" if line.order is None else f", order {line.order:.2f}"
        followed = [(row.nfe, row.rms, 0.0) for row in line.rows if row.rms is not None]
        if followed:
            flow.append(plot.Curve(_name(line), f"{_name(line)}{order}", *map(list, zip(*followed))))
        measured = [(row.nfe, *row.distances.energy) for row in line.rows if row.distances.energy is not None]
        if measured:
            energy.append(plot.Curve(_name(line), _name(line), *map(list, zip(*measured))))
    floor = max(found.flow_errors.values(), default=None)
    base = found.baseline.energy
    panels = [
        plot.Panel(
            "Distance from the true flow", "rms over samples and dimensions", flow, floor, "error of the reference"
        ),
        plot.Panel(
            "Distance from the true distribution",
            "energy distance (a triangle: not above 2 standard errors)",
            energy,
            None if base is None else max(base.value, 2 * base.error),
            "fresh true samples, or 2 standard errors",
        ),
    ]
    plot.save_curves([panel for panel in panels if panel.curves] or panels[:1], "evaluations", path, caption)


def _plot_samples(task: SolverComparison, found: Comparison, path: Path, caption: str) -> None:
    lines, asked = found.lines, sorted(set(task.nfe))
    cells: list[list[tuple[Tensor, str] | None]] = []
    for line in lines:
        by_request = {asked[-1] if row.requested is None else row.requested: row for row in line.rows}
        shown = [by_request.get(nfe) for nfe in asked]
        row_cells = [
            None if row is None else (row.x, "" if row.nfe == nfe else f"{row.nfe}") for row, nfe in zip(shown, asked)
        ]
        truth = found.truth.get(line.model)
        cells.append(row_cells + ([] if not found.truth else [None if truth is None else (truth, "")]))
    columns = [f"{nfe} evaluations" for nfe in asked] + (["true flow"] if found.truth else [])
    plot.save_table(cells, [_name(line) for line in lines], columns, path, caption)
