"""Shared by all figures: a matplotlib figure, its caption, and a file that is written whole or not at all."""

from __future__ import annotations

import textwrap
from pathlib import Path

from unidiff.files import whole_file

__all__ = ["new_figure", "save_figure"]


def new_figure(columns: int, size: tuple[float, float], rows: int = 1):  # type: ignore[no-untyped-def]
    """A matplotlib figure with its axes, row after row, free of pyplot's global state and of any screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure, path: Path, caption: str) -> None:  # type: ignore[no-untyped-def]
    """Write a figure as a PNG, with wrapped text below it."""
    width = int(14 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in caption.splitlines()), fontsize=8)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
