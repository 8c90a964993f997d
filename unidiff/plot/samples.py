"""Figures of samples: grids of images, curves and slices; points as scatter plots, vectors as histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unidiff.errors import require
from unidiff.files import whole_file
from unidiff.plot.appearance import COLOURS, style
from unidiff.plot.figure import new_figure, save_figure
from unidiff.plot.sheet import Cell, draw_sheet, with_words
from unidiff.plot.signals import signal_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "cut_samples",
    "path_images",
    "sample_images",
    "save_animation",
    "save_samples",
    "save_strip",
    "save_table",
]

_PAPER = 255
_GAP = 2  # pixels between images
_LARGE = 96  # pixels up to which small images are enlarged
_NARROWEST = 480  # pixels of a figure with text below it
_PAGE = 900  # pixels of a wide table, about
_BEFORE = 64, 320  # both, of the figures of older runs
_POINTS = 176  # pixels of a small diagram of points
_Corner = tuple[int, int]
_SHOWN = {3: 2, 4: 9, 5: 9}  # samples in a cell of a table at most, by the axes of a batch: signals, images, volumes
_SLICES = 8  # of a volume or a video, at most


def save_samples(x: Tensor, path: str | Path | None, caption: str = "", columns: int | None = None) -> Figure:
    """Draw samples, each kind of data in its own way.

    Images (N, C, H, W) and signals (N, C, L) are a grid, volumes and videos (N, C, D, H, W) a row of slices or frames
    each, points (N, 2) a scatter plot, other vectors histograms. A signal is drawn as a curve above its spectrum. Small
    images are enlarged pixel by pixel: each stays one square, of fewer pixels in a wide grid.

    Args:
        x: Samples; images in [-1, 1] (values outside are clipped).
        path: The file, .png, .svg or .pdf; None writes none.
        caption: Text below the figure.
        columns: Samples per row of a grid; a square by default.

    Returns:
        The figure.

    Raises:
        ParameterError: If there are no samples.
    """
    require(len(x) > 0, "x", tuple(x.shape), "at least one sample")
    if x.ndim <= 2:
        return _save_points(x, path, caption)
    if x.ndim == 5:
        depth = x.shape[2]
        some = torch.linspace(0, depth - 1, min(depth, _SLICES)).round().long().tolist()
        x, columns = x[:, :, some].transpose(1, 2).flatten(0, 1), len(some)
    elif x.ndim == 3:
        caption += f"\nCurves above amplitude spectra from 0 to {x.shape[2] // 2} periods."
    sheet = _tile(_images(x), columns, large=_large(columns or math.ceil(math.sqrt(len(x)))))
    return draw_sheet([[Cell.of(sheet)]], path, caption, narrowest=_NARROWEST)


def save_strip(
    states: Sequence[Tensor], times: Sequence[float], path: str | Path | None, caption: str = "", **names: Any
) -> Figure:
    """Draw trajectories, states (N, *shape) in pixels at these times, a row per sample and a column per time.

    Of volumes and videos the middle slice is shown; points and vectors are drawn as by `save_samples`.

    Args:
        states: The states.
        times: Their times, which stand above the columns.
        path: The file; see `save_samples`.
        caption: Text below the figure.
        **names: `rows`, names of some rows of equal height: of the samples, or of groups of them.

    Returns:
        The figure.
    """
    require(len(states) > 0, "states", [], "at least one state")
    titles = _titles(times)
    if states[0].ndim <= 2:
        size = 20 if len(states[0]) < 50 else 3
        return draw_sheet([[_points(x, _POINTS, size, 60) for x in states]], path, caption, columns=titles)
    shown = torch.stack([_images(_contrast(state)) for state in states], dim=1)
    rows: Sequence[str] = names.get("rows", ())
    groups = shown.chunk(len(rows)) if rows else [shown]
    cells = [[Cell.of(_tile(group.flatten(0, 1), len(states)))] for group in groups]
    return draw_sheet(cells, path, caption, rows=rows, inner=titles, narrowest=_NARROWEST)


def sample_images(x: Tensor) -> list[Image.Image]:
    """An image of each sample, (N, *shape), as `save_samples` draws it: of volumes and videos the middle slice."""
    return [_tile(image[None], gap=0) for image in _images(x)]


def path_images(states: Sequence[Tensor]) -> list[Image.Image]:
    """One image of each of some states, (N, *shape), of samples on their way; see `save_strip`."""
    return [_tile(_images(_contrast(state))) for state in states]


def save_animation(states: Sequence[Tensor], path: str | Path, times: Sequence[float] | None = None) -> Figure:
    """Animate samples, (N, *shape) per frame, as a GIF that pauses on its last frame; see `save_strip`.

    Args:
        states: The frames.
        path: The GIF file.
        times: Of the frames, which stand below each; by default their number does.

    Returns:
        The figure of the last frame.
    """
    require((total := len(states)) > 0, "states", [], "at least one state")
    words = [f"frame {i} of {total}" for i in range(1, total + 1)] if times is None else _titles(times)
    frames = [with_words(image, text) for image, text in zip(path_images(states), words)]
    durations = [80] * (total - 1) + [2000]
    with whole_file(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return draw_sheet([[Cell.of(frames[-1])]], None)


def save_table(
    cells: Sequence[Sequence[tuple[Tensor, str] | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | Path | None,
    caption: str = "",
) -> Figure:
    """Draw samples in a table: the first of each cell as images, or all its points as a scatter plot.

    Args:
        cells: Samples (N, *shape) with a title, for each row and column; None leaves a cell empty.
        rows: Names of the rows.
        columns: Titles of the columns.
        path: The file; see `save_samples`.
        caption: Text below the table.

    Returns:
        The figure.
    """
    points = [cell[0] for line in cells for cell in line if cell is not None and cell[0].ndim == 2]
    # One window for all panels, about the last column, which shows the truth where there is one.
    reach = 1.3 * float(points[-1].nan_to_num(0.0, 0.0, 0.0).abs().quantile(0.99).clamp(min=0.1)) if points else 1.0

    most = max((min(len(cell[0]), _SHOWN.get(cell[0].ndim, 1)) for line in cells for cell in line if cell), default=1)
    large = _large(len(columns) * math.ceil(math.sqrt(most)))

    def drawn(cell: tuple[Tensor, str] | None) -> Cell | None:
        if cell is None:
            return None
        x, title = cell
        if x.ndim > 2:
            return Cell.of(_tile(_images(x[: _SHOWN[x.ndim]]), large=large), title)
        return _points(x, _POINTS, 2.5, 40, (-reach, reach))._replace(title=title)

    return draw_sheet([[drawn(cell) for cell in line] for line in cells], path, caption, rows=rows, columns=columns)


@style()
def _save_points(x: Tensor, path: str | Path | None, caption: str) -> Figure:
    figure, (ax,) = new_figure(1, (4.2, 4.4))
    _draw_points(ax, x, 20 if len(x) < 50 else 3, 60, None)
    ax.set(**({"xlabel": "$x_1$", "ylabel": "$x_2$"} if x.shape[1:] == (2,) else {"xlabel": "x", "ylabel": "density"}))
    return save_figure(figure, path, caption)


def _titles(times: Sequence[float]) -> list[str]:
    """The times in as few digits as tell them apart, two at least."""
    return [f"t = {t:.2f}" for t in times]


def _points(x: Tensor, side: int, size: float, bins: int, limits: tuple[float, float] | None = None) -> Cell:
    return Cell((side, side), partial(_draw_small, x=x, size=size, bins=bins, limits=limits))


def _draw_points(ax: Any, x: Tensor, size: float, bins: int, limits: tuple[float, float] | None) -> None:
    """Draw points (N, 2) as a scatter plot, other data as histograms of their first dimensions."""
    values = _finite(x).flatten(1).numpy()
    if values.shape[1] == 2:
        ax.scatter(values[:, 0], values[:, 1], s=size, alpha=0.6, linewidths=0, color=COLOURS[0])
        if limits is None:
            ax.set_aspect("equal", adjustable="datalim")
        else:
            ax.set(xlim=limits, ylim=limits)
    else:
        bins = min(bins, 5 + int(len(values) ** 0.5))
        for dimension in values.T[:8]:
            ax.hist(dimension, bins=bins, range=limits, histtype="step", density=True)
    ax.set_box_aspect(1)


def _draw_small(ax: Any, **options: Any) -> None:
    """As `_draw_points`, in a frame without numbers."""
    _draw_points(ax, **options)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, edgecolor="0.75")


def _images(x: Tensor) -> Tensor:
    """An image (N, C, H, W) of each sample: of a signal its drawing, of a volume or a video its middle slice."""
    if x.ndim == 3:
        return signal_images(_finite(x))
    return x[:, :, x.shape[2] // 2] if x.ndim == 5 else x


def _finite(x: Tensor) -> Tensor:
    require(len(x) > 0, "x", tuple(x.shape), "at least one sample")
    return x.detach().float().cpu().nan_to_num()


def _contrast(x: Tensor) -> Tensor:
    """Noisy images scaled into [-1, 1] by their 99th percentile, so that large noise is not clipped."""
    x = _finite(x)
    return x / float(np.quantile(x.abs().numpy(), 0.99).clip(min=1.0))


def _tile(x: Tensor, columns: int | None = None, gap: int = _GAP, large: int = _LARGE) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1] in rows, a square by default; small ones are enlarged by an integer factor."""
    pixels = ((_finite(x).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    count, channels, height, width = x.shape
    zoom = _zoom(height, width, large)
    size = width * zoom, height * zoom
    whole, corners = _places(count, size, columns, gap)
    sheet = Image.new("RGB", whole, (_PAPER,) * 3)
    for image, corner in zip(pixels, corners):
        # Latents or other channel counts have no colours: their first channel is shown.
        array = image.permute(1, 2, 0).numpy() if channels == 3 else image[0].numpy()
        sheet.paste(Image.fromarray(array).resize(size, Image.Resampling.NEAREST), corner)
    return sheet


def _large(across: int) -> int:
    """Pixels up to which small images are enlarged: so many beside each other are no wider than a page."""
    return max(_LARGE // 3, min(_LARGE, _PAGE // across))


def _zoom(height: int, width: int, large: int = _LARGE) -> int:
    """The factor that enlarges small images."""
    return max(1, large // max(height, width))


def _places(
    count: int, size: tuple[int, int], columns: int | None = None, gap: int = _GAP
) -> tuple[tuple[int, int], list[_Corner]]:
    """The size of a sheet of images of one size, a square of them by default, and their upper left corners."""
    columns = columns or math.ceil(math.sqrt(count))
    width, height = size[0] + gap, size[1] + gap
    corners = [(gap + i % columns * width, gap + i // columns * height) for i in range(count)]
    return (columns * width + gap, math.ceil(count / columns) * height + gap), corners


def cut_samples(sheet: Image.Image, shape: Sequence[int], count: int, most: int) -> list[Image.Image] | None:
    """The first images of a square of them that `save_samples` drew; None of another figure.

    Args:
        sheet: The figure.
        shape: Of one sample; of images of another size, such as decoded latents, the squares are found by the width.
        count: How many samples were drawn.
        most: How many to cut out.
    """
    columns = math.ceil(math.sqrt(count))
    for large, narrowest in ((_large(columns), _NARROWEST), (_LARGE, _NARROWEST), _BEFORE):
        sizes = []
        if len(shape) in (2, 3):
            height, width = _images(torch.zeros(1, *shape)).shape[2:]
            zoom = _zoom(height, width, large)
            sizes.append((width * zoom, height * zoom))
        if sheet.width > narrowest:
            sizes.append((side := (sheet.width - _GAP) // columns - _GAP, side))
        for width, height in sizes:
            whole, corners = _places(count, (width, height))
            left = (sheet.width - whole[0]) // 2
            if min(width, height) > 0 and sheet.width == max(whole[0], narrowest) and sheet.height >= whole[1]:
                return [sheet.crop((left + x, y, left + x + width, y + height)) for x, y in corners[:most]]
    return None
