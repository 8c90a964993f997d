"""Shared by all figures: a matplotlib figure, its caption, and files that are written whole or not at all."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from unidiff.errors import ParameterError
from unidiff.files import whole_file
from unidiff.plot.appearance import import_matplotlib, shown, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "PAGE", "also_as", "empty_figure", "image_of", "new_figure", "save_figure", "write_figure"]

FORMATS = ("png", "svg", "pdf")
PAGE = 7.2  # inches: no diagram is wider
_DPI = 192
_LAYOUT: Literal["constrained"] | None = "constrained"
_UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_also: ContextVar[tuple[str, ...]] = ContextVar("also", default=())


@contextmanager
def also_as(formats: Iterable[str]) -> Iterator[None]:
    """Write each figure that the block writes in these formats, too, beside its file.

    Raises:
        ParameterError: If there is no such format.
    """
    for name in (formats := tuple(formats)):
        _require_format(name, "format", name)
    token = _also.set(formats)
    try:
        yield
    finally:
        _also.reset(token)


def empty_figure(size: tuple[float, float], dpi: int = _DPI, layout: Literal["constrained"] | None = None) -> Figure:
    """A matplotlib figure, free of pyplot's global state and of any screen."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    return figure


@style()
def new_figure(columns: int, size: tuple[float, float], rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure in the style of unidiff with its axes, row after row; draw in them inside `style`."""
    figure = empty_figure(size, layout=_LAYOUT)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure: Figure, path: str | Path | None, caption: str = "") -> Figure:
    """Write a figure with wrapped text below it; see `write_figure`."""
    if caption:
        figure.supxlabel(wrapped(caption, int(13 * figure.get_figwidth())), fontsize=9)
    return write_figure(figure, path)


def wrapped(text: str, width: int) -> str:
    """Text in lines of about this many characters, as matplotlib must have it."""
    lines = shown(text).splitlines()
    return "\n".join(textwrap.fill(line, max(width, 10), break_on_hyphens=False) for line in lines)


@style()
def write_figure(figure: Figure, path: str | Path | None) -> Figure:
    """Write a figure as a PNG, SVG or PDF file, by the ending of its name, if any; the same figure is the same bytes.

    Args:
        figure: The figure.
        path: The file; None for none.

    Returns:
        The figure.

    Raises:
        ParameterError: If the ending is another one.
    """
    if path is None:
        return figure
    path = Path(path)
    own = path.suffix[1:].lower() or "png"
    _require_format(own, "path", str(path))
    for kind in dict.fromkeys((own, *_also.get())):
        with whole_file(path if kind == own else path.with_suffix(f".{kind}")) as temporary:
            if kind == "png":
                image_of(figure).save(temporary, "PNG", dpi=(figure.dpi, figure.dpi))
            else:
                figure.savefig(temporary, format=kind, metadata=_UNDATED[kind])
    return figure


def image_of(figure: Figure) -> Image.Image:
    """The pixels of a figure."""
    canvas: Any = figure.canvas
    canvas.draw()  # once; `savefig` draws twice
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _require_format(kind: str, name: str, value: str) -> None:
    if kind not in FORMATS:
        allowed = f"one of {', '.join(FORMATS)}" if name == "format" else "the name of a .png, .svg or .pdf file"
        raise ParameterError(name, f"must be {allowed}, got {value!r}")
