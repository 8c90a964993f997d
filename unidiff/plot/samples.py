"""Figures of samples: grids of images, curves and slices; points as scatter plots, vectors as histograms."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unidiff.files import whole_file
from unidiff.plot.figure import new_figure, save_figure
from unidiff.plot.signals import signal_images
from unidiff.text import clean

__all__ = [
    "cut_samples",
    "draw_samples",
    "path_images",
    "sample_images",
    "save_animation",
    "save_samples",
    "save_strip",
    "save_table",
]

_PAPER, _INK = 255, 40
_GAP = 2  # pixels between images
_NARROWEST = 320  # pixels of a figure with text below it
_Corner = tuple[int, int]
_SHOWN = {3: 2, 4: 9, 5: 9}  # samples in a cell of a table at most, by the axes of a batch: signals, images, volumes
_SLICES = 8  # of a volume or a video, at most


def save_samples(x: Tensor, path: Path, caption: str, columns: int | None = None) -> None:
    """Draw samples, each kind of data in its own way.

    Images (N, C, H, W) and signals (N, C, L) are a grid, volumes and videos (N, C, D, H, W) a row of slices or frames
    each, points (N, 2) a scatter plot, other vectors histograms. A signal is drawn as a curve above its spectrum.

    Args:
        x: Samples; images in [-1, 1] (values outside are clipped).
        path: The PNG file.
        caption: Text below the figure.
        columns: Samples per row of a grid; a square by default.
    """
    if x.ndim == 5:
        depth = x.shape[2]
        some = torch.linspace(0, depth - 1, min(depth, _SLICES)).round().long().tolist()
        _save_images(x[:, :, some].transpose(1, 2).flatten(0, 1), len(some), path, caption)
    elif x.ndim > 2:
        note = f"\nCurves above amplitude spectra from 0 to {x.shape[2] // 2} periods." if x.ndim == 3 else ""
        _save_images(_images(x), columns, path, caption + note)
    else:
        _save_points([x], [""], path, caption)


def draw_samples(ax, x: Tensor, title: str = "") -> None:  # type: ignore[no-untyped-def]
    """Draw samples into the axes of a figure, as `save_samples` does: of volumes and videos the middle slice."""
    ax.set_title(title)
    if x.ndim > 2:
        ax.axis("off")
        ax.imshow(_tile(_images(_contrast(x))))
    else:
        _draw_points(ax, x, 20 if len(x) < 50 else 3, 60)


def save_strip(states: Sequence[Tensor], times: Sequence[float], path: Path, caption: str) -> None:
    """Draw trajectories, states (N, *shape) in pixels at these times, a row per sample and a column per time.

    Of volumes and videos the middle slice is shown; points and vectors are drawn as by `save_samples`.
    """
    if states[0].ndim > 2:
        shown = torch.stack([_images(_contrast(state)) for state in states], dim=1).flatten(0, 1)
        _save_images(shown, len(states), path, caption)
    else:
        _save_points(states, [f"t = {t:.2f}" for t in times], path, caption)


def sample_images(x: Tensor) -> list[Image.Image]:
    """An image of each sample, (N, *shape), as `save_samples` draws it: of volumes and videos the middle slice."""
    return [_tile(image[None], gap=0) for image in _images(x)]


def path_images(states: Sequence[Tensor]) -> list[Image.Image]:
    """One image of each of some states, (N, *shape), of samples on their way; see `save_strip`."""
    return [_tile(_images(_contrast(state))) for state in states]


def save_animation(states: Sequence[Tensor], path: Path) -> None:
    """Animate samples, (N, *shape) per frame, as a GIF that pauses on its last frame; see `save_strip`."""
    frames = path_images(states)
    durations = [80] * (len(frames) - 1) + [2000]
    with whole_file(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def save_table(
    cells: Sequence[Sequence[tuple[Tensor, str] | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    path: Path,
    caption: str,
) -> None:
    """Draw samples in a table: the first of each cell as images, or all its points as a scatter plot.

    Args:
        cells: Samples (N, *shape) with a title, for each row and column; None leaves a cell empty.
        rows: Labels of the rows.
        columns: Labels of the columns.
        path: The PNG file.
        caption: Text below the table.
    """
    size = 1.5 * len(columns) + 1.6, 1.7 * len(rows) + 0.6
    figure, axes = new_figure(len(columns), size, len(rows))
    points = [cell[0] for line in cells for cell in line if cell is not None and cell[0].ndim == 2]
    # One window for all panels, about the last column, which shows the truth where there is one.
    reach = 1.3 * float(points[-1].nan_to_num(0.0, 0.0, 0.0).abs().quantile(0.99).clamp(min=0.1)) if points else 1.0
    for number, ax in enumerate(axes):
        row, column = divmod(number, len(columns))
        ax.set(xticks=[], yticks=[])
        cell = cells[row][column]
        titles = (columns[column] if row == 0 else "", "" if cell is None else cell[1])
        ax.set_title("\n".join(filter(None, titles)), fontsize=7)
        if column == 0:
            words = [line for part in rows[row].split(" @ ") for line in textwrap.wrap(part, 18)]
            ax.set_ylabel("\n".join(words), fontsize=7, rotation=0, ha="right", va="center")
        if cell is None:
            ax.axis("off") if column else [spine.set_visible(False) for spine in ax.spines.values()]
        elif cell[0].ndim > 2:
            ax.imshow(_tile(_images(cell[0][: _SHOWN[cell[0].ndim]])))
        else:
            _draw_points(ax, cell[0], 1.5, 40, (-reach, reach))
    save_figure(figure, path, caption)


def _save_points(states: Sequence[Tensor], titles: Sequence[str], path: Path, caption: str) -> None:
    width = 5.0 if len(states) == 1 else 2.4 * len(states)
    figure, axes = new_figure(len(states), (width, 5.4 if len(states) == 1 else 3.2))
    for ax, state, title in zip(axes, states, titles):
        _draw_points(ax, state, 20 if len(state) < 50 else 3, 60)
        ax.set_title(title)
    save_figure(figure, path, caption)


def _draw_points(  # type: ignore[no-untyped-def]
    ax, x: Tensor, size: float, bins: int, limits: tuple[float, float] | None = None
) -> None:
    """Draw points (N, 2) as a scatter plot, other data as histograms of their first dimensions."""
    values = _finite(x).flatten(1).numpy()
    if values.shape[1] == 2:
        ax.scatter(values[:, 0], values[:, 1], s=size, alpha=0.6, linewidths=0)
        if limits is None:
            ax.set_aspect("equal", adjustable="datalim")
        else:
            ax.set(xlim=limits, ylim=limits)
        ax.set_box_aspect(1)
    else:
        for dimension in values.T[:8]:
            ax.hist(dimension, bins=bins, range=limits, histtype="step", density=True)


def _images(x: Tensor) -> Tensor:
    """An image (N, C, H, W) of each sample: of a signal its drawing, of a volume or a video its middle slice."""
    if x.ndim == 3:
        return signal_images(_finite(x))
    return x[:, :, x.shape[2] // 2] if x.ndim == 5 else x


def _finite(x: Tensor) -> Tensor:
    return x.detach().float().cpu().nan_to_num()


def _contrast(x: Tensor) -> Tensor:
    """Noisy images scaled into [-1, 1] by their 99th percentile, so that large noise is not clipped."""
    x = _finite(x)
    return x / float(np.quantile(x.abs().numpy(), 0.99).clip(min=1.0))


def _tile(x: Tensor, columns: int | None = None, gap: int = _GAP) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1] in rows, a square by default; small ones are enlarged by an integer factor."""
    count, channels, height, width = x.shape
    zoom = _zoom(height, width)
    size = width * zoom, height * zoom
    pixels = ((_finite(x).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    whole, corners = _places(count, size, columns, gap)
    sheet = Image.new("RGB", whole, (_PAPER,) * 3)
    for image, corner in zip(pixels, corners):
        # Latents or other channel counts have no colours: their first channel is shown.
        array = image.permute(1, 2, 0).numpy() if channels == 3 else image[0].numpy()
        sheet.paste(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC), corner)
    return sheet


def _zoom(height: int, width: int) -> int:
    """The factor that enlarges small images."""
    return max(1, 64 // max(height, width))


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
    columns, sizes = math.ceil(math.sqrt(count)), []
    if len(shape) in (2, 3):
        height, width = _images(torch.zeros(1, *shape)).shape[2:]
        zoom = _zoom(height, width)
        sizes.append((width * zoom, height * zoom))
    if sheet.width > _NARROWEST:
        sizes.append((side := (sheet.width - _GAP) // columns - _GAP, side))
    for width, height in sizes:
        whole, corners = _places(count, (width, height))
        left = (sheet.width - whole[0]) // 2
        if min(width, height) > 0 and sheet.width == max(whole[0], _NARROWEST) and sheet.height >= whole[1]:
            return [sheet.crop((left + x, y, left + x + width, y + height)) for x, y in corners[:most]]
    return None


def _save_images(x: Tensor, columns: int | None, path: Path, caption: str) -> None:
    """Write images as one, with wrapped text below it."""
    image = _tile(x, columns)
    font, width = ImageFont.load_default(size=13), max(image.width, _NARROWEST)
    lines = [line for text in clean(caption).splitlines() for line in textwrap.wrap(text, width // 7)]
    sheet = Image.new("RGB", (width, image.height + 18 * len(lines) + 8), (_PAPER,) * 3)
    sheet.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        draw.text((4, image.height + 3 + 18 * row), line, fill=(_INK,) * 3, font=font)
    with whole_file(path) as temporary:
        sheet.save(temporary, "PNG")
