"""The figures that `unidiff reproduce` draws: one line of a table for each. No torch in here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from unidiff.errors import ParameterError
from unidiff.recipe.shipped import shipped_folder

__all__ = ["FIGURES", "Figure", "figure_named"]

_DIGITS, _CLASSES = "shipped:ddpm_digits", "shipped:ddpm_digits_classes"
_HIGHAM = "Higham, Higham & Grindrod 2023"
_THESIS = "Sedykh's thesis"
_SLIDES = "slides of Sanchez Garcia & Soto Vicente 2024"


@dataclass(frozen=True)
class Figure:
    """A figure of a source text.

    Attributes:
        name: Its name on the command line, and that of its function in the script, with _ for -.
        source: The text and the number of the figure there.
        shows: What it must show.
        file: Name of the script.
        seconds: What it takes on one slow core, about.
        quick_seconds: The same with `--quick`.
        model: The run that is drawn from unless another is named; empty if no run is needed.
    """

    name: str
    source: str
    shows: str
    file: str
    seconds: int
    quick_seconds: int
    model: str = ""

    @property
    def script(self) -> Path:
        """The script."""
        return shipped_folder("examples/papers") / self.file

    @property
    def function(self) -> str:
        """Name of the function in the script that draws it."""
        return self.name.replace("-", "_").replace(".", "_")


_ALL = (
    Figure(
        "higham-5",
        f"{_HIGHAM}, figure 5",
        "nine different images from one noise",
        "nine_denoisings.py",
        20,
        4,
        _DIGITS,
    ),
    Figure(
        "higham-6",
        f"{_HIGHAM}, figure 6",
        "none of nine resembles the image that was noised",
        "nine_denoisings.py",
        40,
        8,
        _DIGITS,
    ),
    Figure(
        "higham-7",
        f"{_HIGHAM}, figure 7",
        "the gradient energy stays R = 11.15, and the first mode gets it all",
        "heat_figure7.py",
        2,
        2,
    ),
)
FIGURES = {figure.name: figure for figure in _ALL}


def figure_named(name: str) -> Figure:
    """The figure of this name.

    Raises:
        ParameterError: If there is none.
    """
    if name in FIGURES:
        return FIGURES[name]
    close = difflib.get_close_matches(name, FIGURES, n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(FIGURES)}."
    raise ParameterError("name", f"must be a figure, got {name!r}. {remedy}")
