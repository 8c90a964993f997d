"""Sheets: images and small diagrams in rows and columns, pixel for pixel, with names, titles and a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unidiff.plot.appearance import POINTS, import_matplotlib, shown, style
from unidiff.plot.figure import PAGE, empty_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cell", "draw_sheet", "with_words"]

_DPI = 128
_LINE = round(1.3 * POINTS / 72 * _DPI)  # pixels from one line of text to the next
_LETTER = 9.0  # pixels of a letter, about
_SMALLEST = 7.5  # points of text where a sheet is shrunk to the width of a page
_BETWEEN = 10  # pixels between cells of a table
_ROW_NAME = 26  # letters in a line of a row's name


class Cell(NamedTuple):
    """A cell of a sheet: an image as it is, or what is drawn into axes of this size in pixels; a title above it."""

    size: tuple[int, int]
    content: Image.Image | Callable[[Any], None]
    title: str = ""

    @classmethod
    def of(cls, image: Image.Image, title: str = "") -> Cell:
        """The cell of an image."""
        return cls(image.size, image, title)


@style()
def draw_sheet(
    cells: Sequence[Sequence[Cell | None]],
    path: str | Path | None,
    caption: str = "",
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    inner: Sequence[str] = (),
    narrowest: int = 0,
) -> Figure:
    """Draw rows of cells; of a sheet that is wider than a page the text is larger.

    Args:
        cells: Row after row, of one length; None leaves a place empty.
        path: The file; see `write_figure`.
        caption: Text below.
        rows: Names of the rows, on the left.
        columns: Titles of the columns.
        inner: Titles over equal parts of the first column, such as the columns of a grid of images.
        narrowest: Least width in pixels.

    Returns:
        The figure.
    """
    widths = [max([cell.size[0] for row in cells if (cell := row[at])], default=1) for at in range(len(cells[0]))]
    heights = [max([cell.size[1] for cell in row if cell], default=1) for row in cells]
    names = [_name(name) for name in rows]
    longest = max((_length(line) for name in names for line in name.split("\n")), default=0)
    zoom = max(1.0, (longest + sum(widths) + _BETWEEN * len(widths)) / (PAGE * _DPI) * _SMALLEST / POINTS)
    between, letter = round(_LINE * zoom), _LETTER * zoom
    titles = [_broken(title, width / zoom) for title, width in zip(columns, widths)]
    left = 14 + round(longest * zoom) if longest else 0
    top = _lines([*titles, *inner]) * between + (6 if any((*titles, *inner)) else 0)
    above = [_lines([_broken(c.title, w / zoom) for c, w in zip(row, widths) if c]) * between for row in cells]
    x = list(accumulate((width + _BETWEEN for width in widths), initial=left))
    y = list(accumulate((a + height + _BETWEEN for a, height in zip(above, heights)), initial=top))
    wide = x[-1] - _BETWEEN
    width = max(wide, narrowest, round(letter * 24) if caption else 0)
    words = "\n".join(_wrapped(line, width / zoom) for line in shown(caption).splitlines())
    height = y[-1] - _BETWEEN + (_lines([words]) * between + 10 if caption else 0)
    figure = empty_figure((width / _DPI, height / _DPI), _DPI)
    shift = (width - wide) // 2

    def write(text: str, across: float, down: float, **look: Any) -> None:
        if text:
            figure.text(across / width, 1 - down / height, text, fontsize=POINTS * zoom, linespacing=1.2, **look)

    for title, at, own in zip(titles, x, widths):
        write(title, shift + at + own / 2, top - 4, ha="center", va="bottom")
    for number, title in enumerate(inner):
        across = shift + x[0] + (number + 0.5) * widths[0] / len(inner)
        write(shown(title), across, top - 4, ha="center", va="bottom")
    for name, row_top, extra, own in zip(names, y, above, heights):
        write(name, shift + left - 10, row_top + extra + own / 2, ha="right", va="center")
    for row, row_top, extra in zip(cells, y, above):
        for cell, at, own in zip(row, x, widths):
            if cell is None:
                continue
            across, down = shift + at + (own - cell.size[0]) // 2, row_top + extra
            write(_broken(cell.title, own / zoom), across + cell.size[0] / 2, down - 3, ha="center", va="bottom")
            if callable(cell.content):
                box = across / width, 1 - (down + cell.size[1]) / height, cell.size[0] / width, cell.size[1] / height
                cell.content(figure.add_axes(box))
            else:
                figure.figimage(np.asarray(cell.content), across, height - down - cell.size[1], origin="upper")
    write(words, 4, height - 5, ha="left", va="bottom")
    return write_figure(figure, path)


def with_words(image: Image.Image, words: str) -> Image.Image:
    """An image above a line of words, without a figure: for the frames of an animation; grey if it is."""
    font = _font()
    sheet = Image.new("RGB", (max(image.width, round(font.getlength(words)) + 8), image.height + _LINE + 6), "white")
    sheet.paste(image, ((sheet.width - image.width) // 2, 0))
    ImageDraw.Draw(sheet).text((sheet.width // 2, image.height + 3), words, "black", font, anchor="ma")
    return sheet if np.ptp(np.asarray(sheet), axis=2).any() else sheet.convert("L")


def _font() -> ImageFont.FreeTypeFont:
    """The font of figures, in pixels."""
    import_matplotlib()
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", _DPI * POINTS // 72)


def _length(line: str) -> int:
    """Pixels of a line of a row's name: by its letters, of which capitals are wide; formulas by their number."""
    return round(max(_LETTER * len(line), 0 if "$" in line else _font().getlength(line)))


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def _broken(title: str, width: float) -> str:
    """A title in lines no wider than its column."""
    return _wrapped(shown(title), width) if title else ""


def _wrapped(line: str, width: float) -> str:
    return textwrap.fill(line, max(6, int(width / _LETTER)), break_on_hyphens=False)


def _name(name: str) -> str:
    return "\n".join(line for part in shown(name).split(" @ ") for line in textwrap.wrap(part, _ROW_NAME))
