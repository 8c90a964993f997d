"""Shared by all figures: a matplotlib figure, its caption, and a file that is written whole or not at all."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from unidiff.files import whole_file

__all__ = ["new_figure", "save_figure"]

_DPI = 120
_LAYOUT: Literal["constrained"] | None = "constrained"


def new_figure(columns: int, size: tuple[float, float], rows: int = 1):  # type: ignore[no-untyped-def]
    """A matplotlib figure with its axes, row after row, free of pyplot's global state and of any screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout=_LAYOUT)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure, path: Path, caption: str) -> None:  # type: ignore[no-untyped-def]
    """Write a figure as a PNG, with wrapped text below it."""
    width = int(14 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in caption.splitlines()), fontsize=8)
    figure.canvas.draw()  # once; `savefig` draws twice
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    with whole_file(path) as temporary:
        image.save(temporary, "PNG", dpi=(_DPI, _DPI))
