"""Fields of two dimensions, with axes, the outline of the domain and a scale of colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from unidiff.plot.appearance import shown, style
from unidiff.plot.figure import PAGE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_fields"]


@style()
def save_fields(
    fields: Sequence[Sequence[tuple[Tensor, str]]],
    sides: Sequence[tuple[float, float]],
    path: str | Path | None,
    caption: str = "",
    rows: Sequence[str] = (),
) -> Figure:
    """Draw fields of two dimensions, first axis to the right, second upwards.

    The fields of a row share their colours, about 0, and the scale at its end; rows without names share one. Where the
    largest values of fields are apart by a factor of 5, colours go with the root of a value, as the scale says.

    Args:
        fields: Rows of values (W, H), NaN outside the domain, each with its title.
        sides: Lengths of the two axes, for each row.
        path: The file, .png, .svg or .pdf; None writes none.
        caption: Text below the figure.
        rows: Names of the rows.

    Returns:
        The figure.
    """
    columns = max(len(row) for row in fields)
    images = [[values.detach().double().cpu().numpy().T for values, _ in row] for row in fields]
    reaches = [[float(np.nanmax(np.abs(image))) for image in row] for row in images]
    reaches = reaches if rows else [[reach for row in reaches for reach in row]] * len(fields)
    wide = min(PAGE, 1.9 * columns + 1.1)
    heights = [max(0.5, min(2.0, height / width)) for width, height in sides]
    figure, axes = new_figure(
        columns, (wide, (wide - 1.1) / columns * sum(heights) + 0.62 * len(fields) + 0.4), len(fields)
    )
    for number, ax in enumerate(axes):
        row, column = divmod(number, columns)
        if column >= len(fields[row]):
            ax.set_axis_off()
            continue
        drawn = _draw_field(ax, images[row][column], sides[row], reaches[row])
        ax.set_title(shown(fields[row][column][1]))
        if column == 0:
            name = f"{shown(rows[row])}\n" if rows else ""
            ax.set_ylabel(f"{name}$y$")
        else:
            ax.set_yticklabels([])
        if row == len(fields) - 1 or column >= len(fields[row + 1]):
            ax.set_xlabel("$x$")
        if column == len(fields[row]) - 1:
            reach, root = max(reaches[row]) or 1.0, _is_root(reaches[row])
            bar = figure.colorbar(drawn, ax=axes[row * columns : (row + 1) * columns], shrink=0.9, pad=0.01)
            bar.set_label("$u$, root scale" if root else "$u$")
            ticks = [part * reach for part in ((-1, -0.25, 0, 0.25, 1) if root else (-1, -0.5, 0, 0.5, 1))]
            bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    return save_figure(figure, path, caption)


def _is_root(reaches: Sequence[float]) -> bool:
    return max(reaches) > 5 * min(reaches)


def _draw_field(ax: Any, image: np.ndarray, sides: tuple[float, float], reaches: Sequence[float]) -> Any:
    """Draw one, with the outline of where it is defined; what a colour bar explains."""
    height, width = image.shape
    extent = (0.0, sides[0], 0.0, sides[1])
    from matplotlib.colors import FuncNorm

    reach, power = max(reaches) or 1.0, 0.5 if _is_root(reaches) else 1.0

    def raised(u: np.ndarray, to: float = power) -> np.ndarray:
        return np.sign(u) * np.abs(u) ** to

    norm = FuncNorm((raised, lambda u: raised(u, 1 / power)), -reach, reach)
    drawn = ax.imshow(image, extent=extent, cmap="RdBu_r", norm=norm, origin="lower", interpolation="nearest")
    inside = np.pad(np.isfinite(image), 1).astype(float)
    x = (np.arange(-1, width + 1) + 0.5) * sides[0] / width
    y = (np.arange(-1, height + 1) + 0.5) * sides[1] / height
    ax.contour(x, y, inside, levels=[0.5], colors="0.2", linewidths=0.8)
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[0, sides[0]], yticks=[0, sides[1]])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return drawn
