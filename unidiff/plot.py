"""Every picture the library draws. It computes nothing: numbers in, files out."""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = [
    "Curve",
    "Graph",
    "Panel",
    "save_animation",
    "save_curves",
    "save_fields",
    "save_graphs",
    "save_loss_curve",
    "save_samples",
    "save_strip",
    "save_table",
]

_PAPER, _INK = 255, 40
_SHOWN = 9  # images in a cell of a table, at most


class Curve(NamedTuple):
    """A line of a diagram: its colour goes by `name`, `label` is its legend, errors are drawn as bars."""

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
    """A diagram of plain lines, each with label, x and y; `logarithmic` names the axes that are: x, y, xy or none."""

    title: str
    x: str
    y: str
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]]
    logarithmic: str = ""
    range: tuple[float, float] | None = None


def save_samples(x: Tensor, path: Path, caption: str, columns: int | None = None) -> None:
    """Draw samples: images (N, C, H, W) as a grid, points (N, 2) as a scatter plot, anything else as histograms.

    Args:
        x: Samples; images in [-1, 1] (values outside are clipped).
        path: The PNG to write.
        caption: What stands under the picture.
        columns: Images in a row; a square if not given.
    """
    if x.ndim == 4:
        _write(_captioned(_tile(x, columns or math.ceil(math.sqrt(len(x)))), caption), path)
    else:
        _save_points([x], [""], path, caption)


def save_strip(states: Sequence[Tensor], times: Sequence[float], path: Path, caption: str) -> None:
    """Draw a few samples on their way from noise to data: a row per sample, a column per time.

    Args:
        states: States in pixels, one per time, each (N, *shape).
        times: Their times.
        path: The PNG to write.
        caption: What stands under the picture.
    """
    if states[0].ndim == 4:
        shown = torch.stack([_contrast(state) for state in states], dim=1).flatten(0, 1)
        _write(_captioned(_tile(shown, len(states)), caption), path)
    else:
        _save_points(states, [f"t = {t:.2f}" for t in times], path, caption)


def save_animation(states: Sequence[Tensor], path: Path) -> None:
    """Animate images on their way from noise to data, (N, C, H, W) per frame, as a GIF that rests on its last frame."""
    frames = [_tile(_contrast(state), math.ceil(math.sqrt(len(state)))) for state in states]
    durations = [80] * (len(frames) - 1) + [2000]
    temporary = path.with_name(f".{path.name}")
    frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    os.replace(temporary, path)


def save_loss_curve(steps: Sequence[int], losses: Sequence[float], path: Path, title: str) -> None:
    """Draw the training loss over optimiser steps, on a logarithmic axis."""
    figure, axes = _figure(1, (6.4, 4.0))
    axes[0].plot(steps, losses, color="tab:blue", linewidth=1)
    axes[0].set(xlabel="optimiser step", ylabel="loss", title=title)
    if min(losses) > 0:
        axes[0].set_yscale("log")
    axes[0].grid(alpha=0.3)
    _write_figure(figure, path)


def save_curves(panels: Sequence[Panel], x: str, path: Path, caption: str) -> None:
    """Draw diagrams side by side, both axes logarithmic; a value not above two errors is a triangle there.

    Args:
        panels: The diagrams.
        x: What the horizontal axes say.
        path: The PNG to write.
        caption: What stands under them.
    """
    figure, axes = _figure(len(panels), (6.0 * len(panels), 5.2))
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
        if any(line.get_ydata().size and max(line.get_ydata()) > 0 for line in ax.get_lines()):  # else nothing to see
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
    figure.supxlabel(_wrapped(caption, 6.0 * len(panels)), fontsize=8)
    _write_figure(figure, path)


def save_graphs(graphs: Sequence[Graph], path: Path, caption: str) -> None:
    """Draw diagrams of lines side by side.

    Args:
        graphs: The diagrams; one with a `range` shows that part of its vertical axis.
        path: The PNG to write.
        caption: What stands under them.
    """
    figure, axes = _figure(len(graphs), (5.6 * len(graphs), 4.6))
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
    figure.supxlabel(_wrapped(caption, 5.6 * len(graphs)), fontsize=8)
    _write_figure(figure, path)


def save_fields(
    fields: Sequence[Sequence[tuple[Tensor, str]]], sides: Sequence[tuple[float, float]], path: Path, caption: str
) -> None:
    """Draw fields of two dimensions, first axis to the right, second upwards; each in its own colours about 0.

    Args:
        fields: Rows of values (W, H), NaN outside the domain, each with its title.
        sides: Lengths of the two axes, for each row.
        path: The PNG to write.
        caption: What stands under them.
    """
    columns = max(len(row) for row in fields)
    heights = [max(0.5, min(2.0, height / width)) for width, height in sides]
    size = 2.1 * columns + 0.4, 2.3 * sum(heights) + 0.6
    figure, axes = _figure(columns, size, len(fields))
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
    figure.supxlabel(_wrapped(caption, size[0]), fontsize=8)
    _write_figure(figure, path)


def _apart(values: Sequence[float]) -> list[float]:
    """Values for the labels of a logarithmic axis: of those whose labels would touch, the one that is there more often.

    Two labels touch within 8 % of the axis, half an inch.
    """
    often = Counter(values)
    reach = 0.08 * math.log(max(often, default=1.0) / min(often, default=1.0))
    chosen: list[float] = []
    for value in sorted(often, key=lambda value: (-often[value], value)):
        if all(abs(math.log(value / other)) > reach for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def save_table(
    cells: Sequence[Sequence[tuple[Tensor, str] | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    path: Path,
    caption: str,
) -> None:
    """Draw samples in a table: the first images of each cell, or all its points as a scatter plot.

    Args:
        cells: Samples (N, *shape) with what stands over them, for each row and column; None leaves a cell empty.
        rows: What the rows are.
        columns: What the columns are.
        path: The PNG to write.
        caption: What stands under the table.
    """
    size = 1.5 * len(columns) + 1.6, 1.7 * len(rows) + 0.6
    figure, axes = _figure(len(columns), size, len(rows))
    points = [cell[0] for line in cells for cell in line if cell is not None and cell[0].ndim == 2]
    # One window for all panels, about the last column, which shows the truth where there is one.
    reach = 1.3 * float(points[-1].nan_to_num(0.0, 0.0, 0.0).abs().quantile(0.99).clamp(min=0.1)) if points else 1.0
    for number, ax in enumerate(axes):
        row, column = divmod(number, len(columns))
        ax.set(xticks=[], yticks=[])
        cell = cells[row][column]
        over = cell[1] if cell is not None else ""
        ax.set_title("\n".join(text for text in (columns[column] if row == 0 else "", over) if text), fontsize=7)
        if column == 0:
            words = [line for part in rows[row].split(" @ ") for line in textwrap.wrap(part, 18)]
            ax.set_ylabel("\n".join(words), fontsize=7, rotation=0, ha="right", va="center")
        if cell is None:
            ax.axis("off") if column else [spine.set_visible(False) for spine in ax.spines.values()]
            continue
        _draw_cell(ax, cell[0], reach)
    figure.supxlabel(_wrapped(caption, size[0]), fontsize=8)
    _write_figure(figure, path)


def _draw_cell(ax, x: Tensor, reach: float) -> None:  # type: ignore[no-untyped-def]
    if x.ndim == 4:
        shown = x[:_SHOWN]
        ax.imshow(_tile(shown, math.ceil(math.sqrt(len(shown)))))
        return
    values = x.detach().float().cpu().nan_to_num().flatten(1).numpy()
    if values.shape[1] == 2:
        ax.scatter(values[:, 0], values[:, 1], s=1.5, alpha=0.6, linewidths=0)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
        ax.set_box_aspect(1)
    else:
        for dimension in values.T[:8]:
            ax.hist(dimension, bins=40, range=(-reach, reach), histtype="step", density=True)


def _contrast(x: Tensor) -> Tensor:
    """Noisy images scaled into [-1, 1] by their own 99th percentile, so that large noise is still a picture."""
    x = x.detach().float().cpu().nan_to_num()
    return x / float(np.quantile(x.abs().numpy(), 0.99).clip(min=1.0))


def _tile(x: Tensor, columns: int) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1] in rows of `columns`; small ones enlarged by a whole factor.

    Enlarged smoothly: an eye reads a digit of 8x8 pixels, but not one of 64 hard squares.
    """
    count, channels, height, width = x.shape
    zoom = max(1, 56 // max(height, width))
    pixels = ((x.detach().float().cpu().nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    gap, rows = 2, math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (width * zoom + gap) + gap, rows * (height * zoom + gap) + gap), (_PAPER,) * 3)
    for i, picture in enumerate(pixels):
        # Latents or other channel counts have no colours: their first channel is shown.
        array = picture.permute(1, 2, 0).numpy() if channels == 3 else picture[0].numpy()
        corner = (gap + i % columns * (width * zoom + gap), gap + i // columns * (height * zoom + gap))
        sheet.paste(Image.fromarray(array).resize((width * zoom, height * zoom), Image.Resampling.BICUBIC), corner)
    return sheet


def _captioned(picture: Image.Image, caption: str) -> Image.Image:
    """The picture with wrapped text under it."""
    font = ImageFont.load_default(size=13)
    picture_width = max(picture.width, 320)
    lines = [line for text in caption.splitlines() for line in textwrap.wrap(text, picture_width // 7)]
    sheet = Image.new("RGB", (picture_width, picture.height + 18 * len(lines) + 8), (_PAPER,) * 3)
    sheet.paste(picture, ((picture_width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        draw.text((4, picture.height + 3 + 18 * row), line, fill=(_INK,) * 3, font=font)
    return sheet


def _save_points(states: Sequence[Tensor], titles: Sequence[str], path: Path, caption: str) -> None:
    width = 5.0 if len(states) == 1 else 2.4 * len(states)
    figure, axes = _figure(len(states), (width, 5.4 if len(states) == 1 else 3.2))
    for ax, state, title in zip(axes, states, titles):
        values = state.detach().float().cpu().nan_to_num().flatten(1).numpy()
        if values.shape[1] == 2:
            ax.scatter(values[:, 0], values[:, 1], s=20 if len(values) < 50 else 3, alpha=0.6, linewidths=0)
            ax.set_aspect("equal", adjustable="datalim")
            ax.set_box_aspect(1)
        else:
            for dimension in values.T[:8]:
                ax.hist(dimension, bins=60, histtype="step", density=True)
        ax.set_title(title)
    figure.supxlabel(_wrapped(caption, width), fontsize=8)
    _write_figure(figure, path)


def _wrapped(caption: str, width: float) -> str:
    """The caption in lines for a figure of this many inches."""
    return "\n".join(textwrap.fill(line, int(width * 14)) for line in caption.splitlines())


def _figure(columns: int, size: tuple[float, float], rows: int = 1):  # type: ignore[no-untyped-def]
    """A matplotlib figure with its axes, row after row, free of pyplot's global state and of any screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _write_figure(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)


def _write(picture: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    picture.save(temporary, "PNG")
    os.replace(temporary, path)
