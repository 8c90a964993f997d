"""Shared by all figures: a matplotlib figure, wrapped captions, files written atomically."""

from __future__ import annotations

import textwrap
from pathlib import Path

from unidiff.files import whole_file

__all__ = ["new_figure", "save_figure", "wrapped"]


def new_figure(columns: int, size: tuple[float, float], rows: int = 1):  # type: ignore[no-untyped-def]
    """A matplotlib figure with its axes, row after row, free of pyplot's global state and of any screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    """Write a figure as a PNG."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def wrapped(caption: str, width: float) -> str:
    """The caption in lines for a figure of this many inches."""
    return "\n".join(textwrap.fill(line, int(width * 14)) for line in caption.splitlines())
