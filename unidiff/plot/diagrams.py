"""Diagrams of numbers: curves with errors, plain lines, fields of two dimensions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from unidiff.plot.figure import new_figure, save_figure

__all__ = ["Curve", "Graph", "Panel", "curves_figure", "save_curves", "save_fields", "save_graphs", "save_loss_curve"]


class Curve(NamedTuple):
    """A line of a diagram: `name` determines its colour, `label` is its legend, errors are drawn as bars."""

    name: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float]


class Panel(NamedTuple):
    """A diagram: curves, and a horizontal line at `floor` (None for no line)."""

    title: str
    y: str
    curves: Sequence[Curve]
    floor: float | None
    floor_label: str


class Graph(NamedTuple):
    """A diagram of plain lines, each with label, x and y; `logarithmic` names the logarithmic axes, such as "xy"."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]]
    logarithmic: str = ""
    range: tuple[float, float] | None = None


def save_loss_curve(steps: Sequence[int], losses: Sequence[float], path: Path, title: str) -> None:
    """Draw the training loss over optimiser steps, on a logarithmic axis."""
    figure, axes = new_figure(1, (6.4, 4.0))
    axes[0].plot(steps, losses, color="tab:blue", linewidth=1)
    axes[0].set(xlabel="optimiser step", ylabel="loss", title=title)
    if min(losses) > 0:
        axes[0].set_yscale("log")
    axes[0].grid(alpha=0.3)
    save_figure(figure, path, "")


def save_curves(panels: Sequence[Panel], x: str, path: Path, caption: str) -> None:
    """Write `curves_figure` into a PNG file, with a text below it."""
    save_figure(curves_figure(panels, x), path, caption)


def curves_figure(panels: Sequence[Panel], x: str):  # type: ignore[no-untyped-def]
    """Diagrams side by side, both axes logarithmic; values below two errors are drawn as triangles there.

    Args:
        panels: The diagrams.
        x: Label of the horizontal axes.
    """
    figure, axes = new_figure(len(panels), (6.0 * len(panels), 5.2))
    names = dict.fromkeys(curve.name for panel in panels for curve in panel.curves)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    styles = {name: ("-", "--", ":", "-.")[number // 10 % 4] for number, name in enumerate(names)}
    for ax, panel in zip(axes, panels):
        for curve in panel.curves:
            look = {"color": colours[curve.name], "linewidth": 1.2, "linestyle": styles[curve.name]}
            clear = [(a, b, e) for a, b, e in zip(curve.x, curve.y, curve.error) if 2 * e < b < math.inf]
            hidden = [(a, 2 * e) for a, b, e in zip(curve.x, curve.y, curve.error) if not b > 2 * e]
            points = list(zip(*clear)) or [(), (), ()]
            bars = points[2] if any(points[2]) else None
            ax.errorbar(
                *map(np.array, points[:2]), yerr=bars, marker="o", markersize=4, capsize=2, label=curve.label, **look
            )
            ax.plot(*np.array(hidden).reshape(-1, 2).T, marker="v", fillstyle="none", **{**look, "linestyle": ""})
        ax.set(xlabel=x, ylabel=panel.y, title=panel.title)
        if any(line.get_ydata().size and max(line.get_ydata()) > 0 for line in ax.get_lines()):
            ax.set(xscale="log", yscale="log")
        if panel.floor is not None and panel.floor > ax.get_ylim()[0] / 10:
            ax.axhline(panel.floor, color="0.5", linestyle="--", linewidth=1, label=panel.floor_label)
        ticks = _apart([value for curve in panel.curves for value in curve.x])
        if len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.set_xticks([], minor=True)
        ax.grid(alpha=0.3, which="both")
        if panel.curves:
            ax.legend(fontsize=7)
    return figure


def save_graphs(graphs: Sequence[Graph], path: Path, caption: str) -> None:
    """Draw diagrams of lines side by side; `Graph.range` limits a vertical axis."""
    figure, axes = new_figure(len(graphs), (5.6 * len(graphs), 4.6))
    for ax, graph in zip(axes, graphs):
        for label, x, y in graph.lines:
            dashed = len(ax.get_lines()) >= 10
            ax.plot(x, y, label=label or None, linewidth=1.4, linestyle="--" if dashed else "-")
        ax.set(xlabel=graph.x, ylabel=graph.y, title=graph.title)
        ax.set(**{f"{axis}scale": "log" for axis in graph.logarithmic})
        if graph.range is not None:
            ax.set_ylim(*graph.range)
        ax.grid(alpha=0.3)
        if any(label for label, _, _ in graph.lines):
            ax.legend(fontsize=7)
    save_figure(figure, path, caption)


def save_fields(
    fields: Sequence[Sequence[tuple[Tensor, str]]], sides: Sequence[tuple[float, float]], path: Path, caption: str
) -> None:
    """Draw fields of two dimensions, first axis to the right, second upwards; each in its own colours about 0.

    Args:
        fields: Rows of values (W, H), NaN outside the domain, each with its title.
        sides: Lengths of the two axes, for each row.
        path: The PNG file.
        caption: Text below the figure.
    """
    columns = max(len(row) for row in fields)
    heights = [max(0.5, min(2.0, height / width)) for width, height in sides]
    size = 2.1 * columns + 0.4, 2.3 * sum(heights) + 0.6
    figure, axes = new_figure(columns, size, len(fields))
    for number, ax in enumerate(axes):
        row, column = divmod(number, columns)
        ax.axis("off")
        if column >= len(fields[row]):
            continue
        values, title = fields[row][column]
        image = values.detach().double().cpu().numpy().T
        reach = float(np.nanmax(np.abs(image)))
        look = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach, "origin": "lower", "interpolation": "nearest"}
        ax.imshow(image, extent=(0, sides[row][0], 0, sides[row][1]), **look)
        ax.set_title(title, fontsize=8)
    save_figure(figure, path, caption)


def _apart(values: Sequence[float]) -> list[float]:
    """Values to label on a logarithmic axis: of those within 8 % of the axis, half an inch, the most frequent."""
    counts = Counter(values)
    reach = 0.08 * math.log(max(counts, default=1.0) / min(counts, default=1.0))
    chosen: list[float] = []
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        if all(abs(math.log(value / other)) > reach for other in chosen):
            chosen.append(value)
    return sorted(chosen)
