"""Shared by all figures: a matplotlib figure, its caption, and a file that is written whole or not at all."""

from __future__ import annotations

import os
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from unidiff.files import whole_file
from unidiff.text import clean

__all__ = ["new_figure", "save_figure"]

_DPI = 120
_LAYOUT: Literal["constrained"] | None = "constrained"


def new_figure(columns: int, size: tuple[float, float], rows: int = 1):  # type: ignore[no-untyped-def]
    """A matplotlib figure with its axes, row after row, free of pyplot's global state and of any screen."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout=_LAYOUT)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure, path: Path, caption: str) -> None:  # type: ignore[no-untyped-def]
    """Write a figure as a PNG, with wrapped text below it. No text of it is read as a formula."""
    width = int(14 * figure.get_figwidth())
    below = figure.supxlabel("\n".join(textwrap.fill(line, width) for line in clean(caption).splitlines()), fontsize=8)
    legends = [legend for ax in figure.axes if (legend := ax.get_legend()) is not None]
    texts = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for text in [below, *texts, *(text for legend in legends for text in legend.get_texts())]:
        text.set_text(clean(text.get_text()))  # a name of a run or a class may hold anything, "$" included
        text.set_parse_math(False)
    figure.canvas.draw()  # once; `savefig` draws twice
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    with whole_file(path) as temporary:
        image.save(temporary, "PNG", dpi=(_DPI, _DPI))


def _import_matplotlib() -> None:
    """Import matplotlib also where MPLBACKEND names a backend that is not installed here, as shells of Jupyter do.

    The variable is as before, and chooses the backend of pyplot as ever if there is one of that name; figures of
    unidiff need none.
    """
    if "matplotlib" in sys.modules or not (backend := os.environ.pop("MPLBACKEND", "")):
        return
    try:
        import matplotlib

        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    finally:
        os.environ["MPLBACKEND"] = backend
