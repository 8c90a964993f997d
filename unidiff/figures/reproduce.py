"""Draw figures of the source texts: run their scripts, and write image and numbers together."""

from __future__ import annotations

import json
import os
import runpy
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unidiff.arguments import plain_arguments
from unidiff.errors import ParameterError, RunError, RunFailed, require_whole
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel, open_model
from unidiff.figures.registry import Figure, figure_named
from unidiff.files import digest, whole_files
from unidiff.run.environment import environment
from unidiff.run.output import ANOTHER
from unidiff.run.shipped import require_own
from unidiff.writable import require_writable

__all__ = ["Reproduction", "draw_figures", "function_of", "reproduce"]

_BYTES = 2_000_000  # of one figure, about
_Function = Any  # (model, path, *, quick, seed) -> Findings, without the model where none is needed


@dataclass(frozen=True)
class Reproduction:
    """A figure that was drawn.

    Attributes:
        figure: Which one.
        findings: Its numbers, and whether it shows what it must.
        image: A PNG file.
        record: The numbers with all that they depend on, a JSON file.
    """

    figure: Figure
    findings: Findings
    image: Path
    record: Path

    def to_dict(self) -> dict[str, Any]:
        """The content of the record."""
        content: dict[str, Any] = json.loads(self.record.read_text())
        return content


@plain_arguments
def reproduce(
    name: str,
    run: str | Path | None = None,
    *,
    out: str | Path = Path("runs/reproduce"),
    quick: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Reproduction:
    """Draw a figure of the source texts and find the number that it must show; see docs/figures.md.

    Args:
        name: The figure, such as "higham-4"; `unidiff reproduce` lists them.
        run: The run to draw from, or "exact:digits" for the closed-form optimum; by default a model that comes with
            unidiff.
        out: Where NAME.png and NAME.json are written.
        quick: Fewer samples and steps.
        seed: Seed of all that is random, at least 0.
        overwrite: Replace a figure that is there.

    Raises:
        UnidiffError: If there is no such figure, the run does not fit, or files cannot be written.
    """
    figure = figure_named(name)
    (drawn,) = draw_figures([figure], run, Path(out), quick=quick, seed=seed, overwrite=overwrite)
    return drawn


def draw_figures(
    figures: Sequence[Figure],
    run: str | Path | None,
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    functions: dict[str, _Function] | None = None,
    lenient: bool = False,
    notice: Callable[[str], None] = warnings.warn,
) -> Iterator[Reproduction]:
    """Draw figures, after all that can be checked has been, before the first is drawn.

    Args:
        figures: The figures.
        run: As for `reproduce`; figures without a model are drawn without it.
        out: As for `reproduce`.
        quick: As for `reproduce`.
        seed: As for `reproduce`.
        overwrite: As for `reproduce`.
        functions: The functions of a script by the names of its figures; by default those of the shipped scripts.
        lenient: Draw a figure that the run cannot be used for from its own model, with a notice.
        notice: Receives what the user must know, in sentences.
    """
    require_whole("seed", seed, 0, 2**39)
    if run is not None and (one := [figure for figure in figures if not figure.model]) and len(one) == len(figures):
        raise ParameterError("run", f"{one[0].name} is drawn without a run. Leave it out.")
    require_own(out)
    require_writable(out, len(figures) * _BYTES, ANOTHER)
    for figure in figures:
        taken = [name for name in _files(figure) if os.path.lexists(out / name)]
        if taken and not overwrite:
            raise RunError(f"{out / taken[0]}: this figure is already there. Replace it with --overwrite. {ANOTHER}")

    @cache
    def opened(name: str) -> ImageModel:
        model = open_model(name, notice)
        if (stand_in := model.source.stand_in) is not None:
            notice(stand_in)
        return model

    def model_of(figure: Figure) -> ImageModel | None:
        if not figure.model:
            return None
        model = opened(str(run or figure.model))
        try:
            model.require(figure.needs)
        except RunError as error:
            if run is None or not lenient:
                raise
            notice(f"{figure.name} is drawn from {figure.model}: {error}")
            return opened(figure.model)
        return model

    models = [model_of(figure) for figure in figures]
    known = functions or {}
    scripts = [known.get(figure.name) or function_of(figure) for figure in figures]
    return (_drawn(*each, out, quick, seed) for each in zip(figures, scripts, models))


def _files(figure: Figure) -> tuple[str, str]:
    return f"{figure.name}.png", f"{figure.name}.json"


def function_of(figure: Figure) -> _Function:
    """The function of the shipped script."""
    if not figure.script.is_file():
        raise RunFailed(f"{figure.script}: this script of unidiff is missing. Install unidiff again.")
    function: _Function = runpy.run_path(str(figure.script))[figure.function]
    return function


def _drawn(
    figure: Figure, function: _Function, model: ImageModel | None, out: Path, quick: bool, seed: int
) -> Reproduction:
    image, record = _files(figure)
    started = time.perf_counter()
    try:
        with whole_files(out, record) as folder:
            taken = () if model is None else (model,)
            findings = function(*taken, folder / image, quick=quick, seed=seed)
            content = {
                "figure": figure.name,
                "source": figure.source,
                "must_show": figure.shows,
                **asdict(findings),
                "quick": quick,
                "seed": seed,
                "script": {"file": figure.file, "digest": digest(function.__code__.co_filename)},
                "model": None if model is None else model.facts(),
                "judge": None if model is None else model.judge_facts(),
                "seconds": round(time.perf_counter() - started, 2),
                "environment": environment(),
            }
            (folder / record).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise RunFailed(f"{out}: {error}. {ANOTHER}") from error
    return Reproduction(figure, findings, out / image, out / record)
