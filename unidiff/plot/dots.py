"""Values of cases side by side, with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unidiff.plot.appearance import COLOURS, shown, style
from unidiff.plot.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Dots", "save_dots"]


class Dots(NamedTuple):
    """A diagram of cases, each with label, value and error; a vertical line at `floor` (None for no line)."""

    title: str
    cases: Sequence[tuple[str, float, float]]
    floor: float | None = None


@style()
def save_dots(diagrams: Sequence[Dots], path: str | Path | None, caption: str = "") -> Figure:
    """Draw the values of cases side by side, a diagram for each number, with error bars; return the figure.

    Labels of cases stand left of the first diagram, and of each whose cases are others than those of the one before.
    """
    height = 1.3 + 0.3 * max(len(diagram.cases) for diagram in diagrams)
    figure, axes = new_figure(len(diagrams), (1.0 + 3.0 * len(diagrams), height))
    before: tuple[str, ...] = ()
    for ax, diagram in zip(axes, diagrams):
        labels, values, errors = zip(*diagram.cases)
        rows, named, before = range(len(labels)), labels if labels != before else [""] * len(labels), labels
        ax.errorbar(values, rows, xerr=errors, fmt="o", color=COLOURS[0])
        ax.set_yticks(rows, [shown(label) for label in named])
        ax.set(ylim=(len(labels) - 0.5, -0.5))
        ax.set_title(shown(diagram.title))
        if diagram.floor is not None:
            ax.axvline(diagram.floor, color="0.35", linestyle=(0, (4, 2)), linewidth=1.2, zorder=1)
    return save_figure(figure, path, caption)
