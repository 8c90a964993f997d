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
        needs: What such a run must have: "judge" (images of which a classifier is shipped), "classes" (conditioning on
            them, for guidance), "likelihood" (pixels, not latents).
    """

    name: str
    source: str
    shows: str
    file: str
    seconds: int
    quick_seconds: int
    model: str = ""
    needs: tuple[str, ...] = ()

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
        "higham-1",
        f"{_HIGHAM}, figure 1",
        "64 images that are representative of the data",
        "drawn_digits.py",
        2,
        1,
        _DIGITS,
        (),
    ),
    Figure(
        "higham-2",
        f"{_HIGHAM}, figure 2",
        "noise is added step by step until nothing of the image is seen",
        "forward_noising.py",
        2,
        1,
        _DIGITS,
        (),
    ),
    Figure(
        "higham-3",
        f"{_HIGHAM}, figure 3",
        "nine noises become images, at least 8 of 9 of which are digits",
        "drawn_digits.py",
        5,
        2,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "higham-4",
        f"{_HIGHAM}, figure 4",
        "500 samples, sorted into classes by an independent classifier",
        "drawn_digits.py",
        60,
        4,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "higham-5",
        f"{_HIGHAM}, figure 5",
        "nine different images from one noise",
        "nine_denoisings.py",
        4,
        2,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "higham-6",
        f"{_HIGHAM}, figure 6",
        "none of nine resembles the image that was noised",
        "nine_denoisings.py",
        8,
        2,
        _DIGITS,
        (),
    ),
    Figure(
        "higham-7",
        f"{_HIGHAM}, figure 7",
        "R = 11.15 is kept, and in the end the first mode has all of it",
        "heat_figure7.py",
        1,
        1,
        "",
        (),
    ),
    Figure(
        "thesis-3.1",
        f"{_THESIS}, figure 3.1",
        "a score is learned where data are, and not in between",
        "two_gaussians.py",
        15,
        5,
        "",
        (),
    ),
    Figure(
        "thesis-3.2",
        f"{_THESIS}, figure 3.2",
        "annealed Langevin dynamics has the weights right, plain has not",
        "two_gaussians.py",
        6,
        2,
        "",
        (),
    ),
    Figure(
        "thesis-4.1",
        f"{_THESIS}, figure 4.1",
        "bits per dimension below those of a Gaussian fit",
        "likelihoods.py",
        60,
        12,
        _DIGITS,
        ("likelihood",),
    ),
    Figure(
        "thesis-4.2",
        f"{_THESIS}, figure 4.2",
        "in few steps less noise is better: eta = 0, 1, sigma-hat",
        "few_steps.py",
        90,
        15,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "thesis-6.1",
        f"{_THESIS}, figure 6.1",
        "images at ten times of the forward process",
        "forward_noising.py",
        1,
        1,
        _DIGITS,
        (),
    ),
    Figure(
        "thesis-6.2",
        f"{_THESIS}, figure 6.2",
        "samples, more than half of which are digits",
        "drawn_digits.py",
        5,
        1,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "slides-guidance",
        f"{_SLIDES}, classifier-free guidance",
        "with more guidance samples are more typical and more alike",
        "guidance_scales.py",
        25,
        4,
        _CLASSES,
        ("judge", "classes"),
    ),
    Figure(
        "slides-leap",
        f"{_SLIDES}, the Nice property",
        "step by step and in one leap: the same distribution",
        "forward_noising.py",
        4,
        1,
        _DIGITS,
        (),
    ),
    Figure(
        "slides-one-step",
        f"{_SLIDES}, sampling algorithm, appendix E",
        "one step gives no image of the data, many steps do",
        "one_step.py",
        12,
        2,
        _DIGITS,
        ("judge",),
    ),
    Figure(
        "slides-schedules",
        f"{_SLIDES}, noise schedulers",
        "the linear schedule is done at 2/3 of the way, the cosine one is not",
        "forward_noising.py",
        1,
        1,
        _DIGITS,
        (),
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
