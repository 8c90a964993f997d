"""The look of all figures: colours that the colour-blind tell apart, markers and dashes for print in grey, formulas."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from unidiff.text import clean

__all__ = ["COLOURS", "MARKERS", "POINTS", "Formula", "import_matplotlib", "look", "shown", "style"]

# Okabe & Ito 2008, without the yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (2, 1.2)))
POINTS = 9  # size of text where a figure is as wide as it was made; at most 7.2 inches, the width of a page
_GREY = "0.45"
_drawing: ContextVar[bool] = ContextVar("drawing", default=False)

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "mathtext.fontset": "dejavusans",
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), POINTS),
    **dict.fromkeys(("axes.titlesize", "figure.titlesize"), POINTS + 1),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.6,
    "legend.handlelength": 2.6,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # The same figure is the same file: without this salt the names inside an SVG are random.
    "svg.hashsalt": "unidiff",
    "pdf.fonttype": 42,
}


class Formula(str):
    """Text of a figure in which `$...$` is mathematics; in any other text a dollar is a dollar."""


def shown(text: str) -> str:
    """The text as matplotlib must have it: a name of a run or a class may hold anything, "$" included."""
    return str(text) if isinstance(text, Formula) else clean(text).replace("$", r"\$")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of unidiff inside the block; matplotlib's own settings are as before after it."""
    if _drawing.get():  # changing all settings takes a millisecond or two
        yield
        return
    import_matplotlib()
    import matplotlib
    from cycler import cycler

    settings: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    token = _drawing.set(True)
    try:
        with matplotlib.rc_context(settings):
            yield
    finally:
        _drawing.reset(token)


def look(number: int, points: int = 0) -> dict[str, Any]:
    """Colour, marker and dashes of the line of this number: 56 are different, also without the dashes.

    Args:
        number: From 0.
        points: Of the line; of more than 20, eight have a marker, at places of this line's own.
    """
    marks = {"color": COLOURS[number % 7], "marker": MARKERS[number % 8], "linestyle": _DASHES[number % 4]}
    if points > 20:
        marks["markevery"] = (points // 8 * (number % 7) // 7, points // 8)
    return marks


def import_matplotlib() -> None:
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
