"""The files of a comparison: a table, the numbers, two figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unidiff import plot
from unidiff.evaluation.comparison import Comparison, Line
from unidiff.run.directory import environment

if TYPE_CHECKING:
    from unidiff.tasks.comparison import SolverComparison

__all__ = ["FILES", "write_comparison"]

FILES = "compare.csv", "errors.png", "samples.png", "compare.json"


def write_comparison(
    task: SolverComparison, comparison: Comparison, facts: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """Write a comparison: compare.csv, compare.json, errors.png, samples.png, all of them or none.

    Args:
        task: The recipe.
        comparison: Its outcome.
        facts: What it depends on beside the recipe.
        directory: Where to; the files of an older comparison there are replaced.

    Returns:
        The content of compare.json.

    Raises:
        RunFailed: If they cannot be written.
    """
    result = {"recipe": task.to_dict(), **facts, **comparison.to_dict(), "environment": environment()}
    table, figure, samples, _ = FILES
    caption = _caption(task, comparison, facts)
    with task.written(directory, result) as folder:
        (folder / table).write_text(comparison.to_csv())
        _plot_errors(comparison, folder / figure, caption)
        _plot_samples(task, comparison, folder / samples, caption)
    return result


def _caption(task: SolverComparison, comparison: Comparison, facts: dict[str, Any]) -> str:
    what = ", ".join(str(run) for run in task.runs) or f"Exact model of {task.data!r} with {task.process!r}"
    text = f"{what}. {comparison.count} samples, seeds from {task.seed}."
    return f"{text}\n{facts['stand_in']}" if facts.get("stand_in") else text


def _name(line: Line) -> str:
    return f"{line.model}: {line.label}" if line.model else line.label


def _plot_errors(comparison: Comparison, path: Path, caption: str) -> None:
    flow, energy = [], []
    for line in comparison.lines:
        order = "" if line.order is None else f", order {line.order:.2f}"
        rms = [(row.nfe, row.rms, 0.0) for row in line.rows if row.rms is not None]
        if rms:
            flow.append(plot.Curve(_name(line), f"{_name(line)}{order}", *map(list, zip(*rms))))
        distances = [(row.nfe, *row.distances.energy) for row in line.rows if row.distances.energy is not None]
        if distances:
            energy.append(plot.Curve(_name(line), _name(line), *map(list, zip(*distances))))
    floor = max(comparison.flow_errors.values(), default=None)
    base = comparison.baseline.energy
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


def _plot_samples(task: SolverComparison, comparison: Comparison, path: Path, caption: str) -> None:
    lines, budgets = comparison.lines, sorted(set(task.nfe))
    cells: list[list[tuple[Tensor, str] | None]] = []
    for line in lines:
        by_request = {budgets[-1] if row.requested is None else row.requested: row for row in line.rows}
        in_row = [by_request.get(nfe) for nfe in budgets]
        row_cells = [
            None if row is None else (row.x, "" if row.nfe == nfe else f"{row.nfe}")
            for row, nfe in zip(in_row, budgets)
        ]
        truth = comparison.truth.get(line.model)
        cells.append(row_cells + ([] if not comparison.truth else [None if truth is None else (truth, "")]))
    columns = [f"{nfe} evaluations" for nfe in budgets] + (["true flow"] if comparison.truth else [])
    plot.save_table(cells, [_name(line) for line in lines], columns, path, caption)
