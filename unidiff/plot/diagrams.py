"""Diagrams of numbers: curves with errors above a band of what cannot be told apart, and plain lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unidiff.plot.appearance import look, shown, style
from unidiff.plot.axes import label_axes, legend_above, ticks_at, upright
from unidiff.plot.figure import PAGE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "Graph", "Panel", "save_curves", "save_graphs", "save_loss_curve"]

_BAND = "0.88"
_LETTERS = 13  # in an inch


class Curve(NamedTuple):
    """A line of a diagram: `name` determines its look, `label` is its legend, errors are drawn as bars."""

    name: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float]


class Panel(NamedTuple):
    """A diagram: curves, and a grey band below `floor` (None for no band)."""

    title: str
    y: str
    curves: Sequence[Curve]
    floor: float | None
    floor_label: str


class Graph(NamedTuple):
    """A diagram of plain lines.

    Attributes:
        title: Above it.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        lines: Of each its label, x and y, and perhaps errors, which are drawn as bars.
        logarithmic: The logarithmic axes, such as "xy".
        range: Limits of the vertical axis.
        levels: Horizontal lines, each a label and a height: what there is to compare with.
    """

    title: str
    x: str
    y: str
    lines: Sequence[tuple[Any, ...]]
    logarithmic: str = ""
    range: tuple[float, float] | None = None
    levels: Sequence[tuple[str, float]] = ()


@style()
def save_loss_curve(steps: Sequence[int], losses: Sequence[float], path: str | Path | None, title: str) -> Figure:
    """Draw the training loss over optimiser steps, on a logarithmic axis where it is above 0; return the figure."""
    figure, (ax,) = new_figure(1, (4.8, 3.0))
    ax.plot(steps, losses, **{**look(0), "marker": "o" if len(steps) < 20 else ""})
    label_axes(ax, "optimiser step", "loss", title)
    if min(losses) > 0:
        ax.set_yscale("log")
        upright(ax.yaxis)
    return save_figure(figure, path)


@style()
def save_curves(panels: Sequence[Panel], x: str, path: str | Path | None, caption: str = "") -> Figure:
    """Draw diagrams side by side, both axes logarithmic, with one legend.

    Values below a panel's floor, or not two errors above 0, cannot be told from it: they are hollow, in a grey band
    where each curve has a height of its own.

    Args:
        panels: The diagrams.
        x: Label of the horizontal axes.
        path: The file, .png, .svg or .pdf; None writes none.
        caption: Text below the figure.

    Returns:
        The figure.
    """
    names = [*dict.fromkeys(curve.name for panel in panels for curve in panel.curves)]
    entries: dict[str, Any] = {}
    labels = {curve.name: shown(curve.label) for panel in reversed(panels) for curve in panel.curves}
    size = (PAGE if len(panels) > 1 else 4.8), 3.6 + 0.12 * len(names)
    figure, axes = new_figure(len(panels), size)
    for ax, panel in zip(axes, panels):
        _draw_panel(ax, panel, names, labels, entries)
        label_axes(ax, x, panel.y, panel.title)
        ticks_at(ax, [value for curve in panel.curves for value in curve.x])
        upright(ax.yaxis)
        if bands := ax.patches:  # a height in the band is no number
            edge = bands[0].get_extents().transformed(ax.transData.inverted()).y1
            ax.set_yticks([tick for tick in ax.get_yticks() if tick >= edge * 0.999])
    if entries:
        legend_above(figure, {name: entries[name] for name in labels.values() if name in entries}, int(13 * size[0]))
    return save_figure(figure, path, caption)


def _draw_panel(ax: Any, panel: Panel, names: Sequence[str], labels: dict[str, str], entries: dict[str, Any]) -> None:
    if not math.isfinite(panel.floor or 0.0):  # the error of a reference that has not settled: nothing to compare with
        panel = panel._replace(floor=None)
    curves = {curve.name: _split(curve, panel.floor) for curve in panel.curves}
    clear = [point for seen, _ in curves.values() for point in seen]
    hidden = [point for _, below in curves.values() for point in below]
    floor = panel.floor or max((2 * e for _, _, e in hidden), default=0.0)
    top = max([y + e for _, y, e in clear], default=10 * floor)
    if top > 0:  # else there is nothing that a logarithmic axis could show
        ax.set(xscale="log", yscale="log")
        least = bottom = min([y for _, y, _ in clear], default=top)
        lanes = [name for name, (_, below) in curves.items() if below]
        if floor > 0 and (lanes or floor > least / 10):  # else the floor is far below all that there is to see
            share = min(0.5, 0.12 + 0.035 * len(lanes))
            bottom = min(floor, least)
            bottom *= (bottom / (1.3 * top)) ** (share / (1 - share))
            ax.axhspan(bottom, floor, color=_BAND, linewidth=0, zorder=0)
            ax.text(0.02, 0.015, shown(panel.floor_label), transform=ax.transAxes, va="bottom", color="0.25")
        else:
            bottom /= 1.5
        ax.set_ylim(bottom, 1.3 * top)
    for name, (seen, below) in curves.items():
        looks = look(names.index(name))
        bars = [e for _, _, e in seen] if any(e for _, _, e in seen) else None
        line = ax.errorbar([x for x, _, _ in seen], [y for _, y, _ in seen], yerr=bars, **looks)
        entries.setdefault(labels[name], line)
        if below and floor > 0:
            height = floor * (bottom / floor) ** (0.05 + 0.8 * (lanes.index(name) + 1) / (len(lanes) + 1))
            faint = {**looks, "linestyle": ":", "linewidth": 0.8, "fillstyle": "none"}
            ax.plot([x for x, _, _ in below], [height] * len(below), **faint)


_Points = list[tuple[float, float, float]]


def _split(curve: Curve, floor: float | None) -> tuple[_Points, _Points]:
    """The points of a curve that are above what it is compared with, and those that are not; of finite numbers."""
    points = [p for p in zip(curve.x, curve.y, curve.error) if math.isfinite(p[1]) and math.isfinite(p[2])]
    return tuple([p for p in points if (p[1] > max(2 * p[2], floor or 0.0)) is which] for which in (True, False))  # type: ignore[return-value]


@style()
def save_graphs(graphs: Sequence[Graph], path: str | Path | None, caption: str = "") -> Figure:
    """Draw diagrams of lines, two beside each other at most, or three that share their legend; return the figure."""
    labels = [[shown(line[0]) for line in graph.lines if line[0]] for graph in graphs]
    common = len(graphs) > 1 and bool(labels[0]) and all(own == labels[0] for own in labels)
    across = min(len(graphs), 3 if common else 2)
    rows = math.ceil(len(graphs) / across)
    wide = PAGE if across > 1 else 4.8
    figure, axes = new_figure(across, (wide, (3.1 if across < 3 else 2.7) * rows + 0.4), rows)
    for ax in axes[len(graphs) :]:
        ax.set_axis_off()
    for ax, graph in zip(axes, graphs):
        entries = _draw_graph(ax, graph)
        if ax is not axes[0] and common and graph.y == graphs[0].y:
            ax.set_ylabel("")
        if entries and not common:
            ax.legend(entries.values(), entries.keys(), loc="best")
    if common:
        legend_above(figure, entries, int(_LETTERS * wide))
    return save_figure(figure, path, caption)


def _draw_graph(ax: Any, graph: Graph) -> dict[str, Any]:
    """Draw one; its legend."""
    entries: dict[str, Any] = {}
    for number, (label, x, y, *error) in enumerate(graph.lines):
        line = ax.errorbar(x, y, yerr=error[0] if error else None, **look(number, len(x)))
        if label:
            entries[shown(label)] = line
    for label, height in graph.levels:
        entries[shown(label)] = ax.axhline(height, color="0.35", linestyle=(0, (1, 1)), linewidth=1.2, zorder=1)
    label_axes(ax, graph.x, graph.y, graph.title)
    ax.set(**{f"{axis}scale": "log" for axis in graph.logarithmic})
    if graph.range is not None:
        ax.set_ylim(*graph.range)
    ticks_at(ax, [value for _, x, *_ in graph.lines for value in x])
    upright(ax.yaxis)
    return entries
