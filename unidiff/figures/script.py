"""What a script of figures does when it is run itself: `python examples/papers/nine_denoisings.py --quick`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from unidiff.errors import UnidiffError
from unidiff.figures.findings import Findings
from unidiff.figures.registry import FIGURES
from unidiff.figures.reproduce import draw_figures

__all__ = ["main"]


def main(description: str, *functions: Callable[..., Findings]) -> None:
    """Draw the figures of a script; see `reproduce`.

    Args:
        description: The script's docstring.
        functions: Its functions, each named as a figure.
    """
    by_name = {name: f for name, figure in FIGURES.items() for f in functions if f.__name__ == figure.function}
    figures = [FIGURES[name] for name in by_name]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if any(figure.model for figure in figures):
        parser.add_argument("--run", help="a run directory, or exact:digits [default: a model that comes with unidiff]")
    parser.add_argument("--quick", action="store_true", help="fewer samples and steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    words = vars(parser.parse_args())
    try:
        out, run = words.pop("out"), words.pop("run", None)
        for drawn in draw_figures(figures, run, out, **words, overwrite=True, functions=by_name):
            print(f"{drawn.image}: {drawn.findings.summary}")
            if not drawn.findings.holds:
                raise SystemExit(f"{drawn.figure.name} does not show: {drawn.figure.shows}. {drawn.findings.bound}")
    except UnidiffError as error:
        parser.error(str(error))
