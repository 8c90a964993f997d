"""Values of cases side by side, with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unidiff.plot.appearance import COLOURS, shown, style
from unidiff.plot.figure import PAGE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Dots", "save_dots"]

_COLUMNS = 2  # of three or more the labels are too small at the width of a page


class Dots(NamedTuple):
    """A diagram of cases, each with label, value and error; a vertical line at `floor` (None for no line)."""

    title: str
    cases: Sequence[tuple[str, float, float]]
    floor: float | None = None


@style()
def save_dots(diagrams: Sequence[Dots], path: str | Path | None, caption: str = "") -> Figure:
    """Draw the values of cases, a diagram for each number, with error bars, two side by side; return the figure.

    Labels of cases stand left of the first diagram of a row, and of each whose cases are others than those before it.
    """
    rows = math.ceil(len(diagrams) / _COLUMNS)
    height = 0.5 + rows * (0.9 + 0.28 * max(len(diagram.cases) for diagram in diagrams))
    figure, axes = new_figure(min(len(diagrams), _COLUMNS), (PAGE, height), rows)
    for ax in axes[len(diagrams) :]:
        ax.remove()
    before: tuple[str, ...] = ()
    for number, (ax, diagram) in enumerate(zip(axes, diagrams)):
        labels, values, errors = zip(*diagram.cases)
        named = number % _COLUMNS == 0 or labels != before
        places, before = range(len(labels)), labels
        ax.errorbar(values, places, xerr=errors, fmt="o", color=COLOURS[0])
        ax.set_yticks(places, [shown(label) if named else "" for label in labels])
        ax.set(ylim=(len(labels) - 0.5, -0.5))
        ax.set_title(shown(diagram.title))
        if diagram.floor is not None:
            ax.axvline(diagram.floor, color="0.35", linestyle=(0, (4, 2)), linewidth=1.2, zorder=1)
    return save_figure(figure, path, caption)
