"""What `unidiff compare` does: exact models or trained runs compared, and the files that say what was found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff import plot
from unidiff.data.base import Data, Source
from unidiff.errors import DataError, RunError, RunFailed
from unidiff.evaluation.compare import compare
from unidiff.evaluation.comparison import Comparison, Line
from unidiff.evaluation.features import Discriminants
from unidiff.exact import GaussianMixture
from unidiff.run.comparing import Comparing
from unidiff.run.directory import RunDirectory, environment
from unidiff.run.execute import Reporter
from unidiff.run.load import Run, load
from unidiff.training.device import resolve_device

__all__ = ["check_place", "compare_recipe", "write_comparison"]

_MOST_DATA = 10_000  # samples of a split that are looked at
_MOST_PIXELS = 4096  # of an image whose discriminants are worth their time
_TOLERANCE, _MOST_STEPS = 1e-4, 512  # of the flow of a trained model, whose solvers are worse by far
_TABLE, _RESULT, _ERRORS, _SAMPLES = "compare.csv", "compare.json", "errors.png", "samples.png"
_SIZE = 20_000_000  # bytes of all files, about; the pictures are most of it


def compare_recipe(
    comparing: Comparing, reporter: Reporter, *, device: str = "auto", allow_imports: bool = False
) -> tuple[Comparison, dict[str, Any]]:
    """Make a comparison.

    Args:
        comparing: What to compare.
        reporter: Who is told how it goes.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow_imports: Accept classes from outside unidiff in the recipes of runs.

    Returns:
        The comparison, and what it depends on beside its recipe, as plain values.

    Raises:
        UnidiffError: If something does not fit.
    """
    options: dict[str, Any] = {
        "seeds": range(comparing.seed, comparing.seed + comparing.count),
        "grid": comparing.grid,
        "batch": comparing.batch,
        "device": resolve_device(device),
        "progress": lambda done, total: reporter.progress("compare", done, total),
    }
    if comparing.runs:
        return _compare_runs(comparing, reporter, options, device, allow_imports)
    assert comparing.data is not None
    assert comparing.data.mixture is not None
    assert comparing.process is not None
    denoiser = GaussianMixture(comparing.process, *comparing.data.mixture).to(options["device"])
    found = compare(denoiser, comparing.solvers, comparing.nfe, comparing.data.shape, **options)
    facts = {"model": "exact", "reference": f"drawn from the density of {comparing.data!r}", "features": None}
    return found, {"device": str(options["device"]), "precision": "float64", **facts}


def _compare_runs(
    comparing: Comparing, reporter: Reporter, options: dict[str, Any], device: str, allow_imports: bool
) -> tuple[Comparison, dict[str, Any]]:
    runs = [load(run, device=device, allow_imports=allow_imports, report=reporter.notice) for run in comparing.runs]
    _check_same_data(runs)
    data = runs[0].recipe.data
    train, test = _splits(data)
    source = test or train
    if source.stand_in:
        reporter.notice(source.stand_in)
    fresh = None if test is None else _some(train, comparing.count)
    features = _features(train)
    names = [RunDirectory(run.directory).name for run in runs]
    labels = names if len(set(names)) == len(names) else [str(run.directory) for run in runs]
    size = max(1, torch.Size(data.shape).numel())
    found = compare(
        [("" if len(runs) == 1 else label, run.denoiser) for label, run in zip(labels, runs)],
        comparing.solvers,
        comparing.nfe,
        data.shape,
        reference_data=_some(source, _MOST_DATA),
        fresh_data=fresh,
        features=features,
        followed=max(64, -(-4096 // size)),  # about as many numbers, for points and for images
        dtype=torch.float32,
        tolerance=_TOLERANCE,
        most_steps=_MOST_STEPS,
        **options,
    )
    facts = {
        "model": [
            {"label": label, "directory": str(run.directory), "step": run.step} for label, run in zip(labels, runs)
        ],
        "reference": f"{source.name}, {min(len(source), _MOST_DATA)} samples, {source.checksum}",
        "stand_in": source.stand_in,
        "features": None if features is None else f"{len(features.directions)} linear discriminants of {train.name}",
    }
    return found, {"device": str(options["device"]), "precision": "float32", **facts}


def _check_same_data(runs: Sequence[Run]) -> None:
    """Refuse to compare models of different data: a stand-in, too, is other data."""
    first, *others = runs
    for other in others:
        pairs = [(run.directory, run.recipe.data, run.manifest.get("data", {})) for run in (first, other)]
        if pairs[0][1] != pairs[1][1]:
            said = " and ".join(f"{directory} learned {data!r}" for directory, data, _ in pairs)
            raise RunError(f"{said}: models of different data cannot be compared.")
        if pairs[0][2].get("checksum") != pairs[1][2].get("checksum"):
            said = " and ".join(
                f"{directory} learned {found.get('name')} ({found.get('checksum')})" for directory, _, found in pairs
            )
            raise RunError(f"{said}: models of different data cannot be compared.")


def _splits(data: Data) -> tuple[Source, Source | None]:
    """The train split, and the test split where there is one."""
    train = data.open()
    try:
        return train, data.open("test")
    except DataError:
        return train, None


def _some(source: Source, count: int) -> Tensor:
    """At most `count` samples, (N, *shape), chosen at random once and for all."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    return source.batch(order[:count].sort().values)


def _features(train: Source) -> Discriminants | None:
    """The feature space of labelled images; None for other data."""
    if train.labels is None or len(train.shape) != 3 or torch.Size(train.shape).numel() > _MOST_PIXELS:
        return None
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_MOST_DATA]
    labels = train.labels[order]
    return Discriminants.fit(train.batch(order), labels) if len(labels.unique()) > 1 else None


def check_place(directory: Path, overwrite: bool) -> None:
    """Refuse a directory that a comparison must not or cannot use; nothing is changed.

    Raises:
        RunError: If the place is taken or not writable.
    """
    RunDirectory(directory).check_writable(_SIZE)
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if not (directory / _RESULT).is_file():
        raise RunError(
            f"{directory}: the directory holds files that are no comparison. Choose another place with --out."
        )
    if not overwrite:
        remedy = "Replace it by --overwrite, or choose another place with --out."
        raise RunError(f"{directory}: a comparison is already there. {remedy}")


def write_comparison(comparing: Comparing, found: Comparison, facts: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Write a comparison: compare.csv, compare.json, errors.png, samples.png, all of them or none.

    Args:
        comparing: The recipe.
        found: What came of it.
        facts: What it depends on beside the recipe.
        directory: Where to; the files of an older comparison there are replaced.

    Returns:
        The content of compare.json.

    Raises:
        RunFailed: If they cannot be written.
    """
    result = {"recipe": comparing.to_dict(), **facts, **found.to_dict(), "environment": environment()}
    unfinished = directory.with_name(f".{directory.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / _TABLE).write_text(found.to_csv())
        (unfinished / _RESULT).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        caption = _caption(comparing, found, facts)
        _plot_errors(found, unfinished / _ERRORS, caption)
        _plot_samples(comparing, found, unfinished / _SAMPLES, caption)
        directory.mkdir(exist_ok=True)
        for name in (_TABLE, _ERRORS, _SAMPLES, _RESULT):
            os.replace(unfinished / name, directory / name)
    except OSError as error:
        raise RunFailed(f"{directory}: {error}. Choose another place with --out.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


def _caption(comparing: Comparing, found: Comparison, facts: dict[str, Any]) -> str:
    what = (
        ", ".join(str(run) for run in comparing.runs) or f"Exact model of {comparing.data!r} with {comparing.process!r}"
    )
    text = f"{what}. {found.count} samples, seeds from {comparing.seed}."
    return f"{text}\n{facts['stand_in']}" if facts.get("stand_in") else text


def _name(line: Line) -> str:
    return f"{line.model}: {line.label}" if line.model else line.label


def _plot_errors(found: Comparison, path: Path, caption: str) -> None:
    flow, energy = [], []
    for line in found.lines:
        nfe = [row.nfe for row in line.rows]
        order = "" if line.order is None else f", order {line.order:.2f}"
        rms = [row.rms for row in line.rows if row.rms is not None]
        if rms:
            flow.append(plot.Curve(_name(line), f"{_name(line)}{order}", nfe, rms, [0.0] * len(rms)))
        measured = [(row.nfe, *row.distances.energy) for row in line.rows if row.distances.energy is not None]
        if measured:
            energy.append(plot.Curve(_name(line), _name(line), *map(list, zip(*measured))))
    floor = max(found.flow_errors.values(), default=None)
    base = found.baseline.energy
    panels = [
        plot.Panel(
            "Distance from the true flow", "rms over samples and dimensions", flow, floor, "error of the reference"
        ),
        plot.Panel(
            "Distance from the true distribution",
            "energy distance (a triangle: not above its standard error)",
            energy,
            None if base is None else max(base.value, base.error),
            "fresh true samples, or their standard error",
        ),
    ]
    plot.save_curves([panel for panel in panels if panel.curves], "evaluations", path, caption)


def _plot_samples(comparing: Comparing, found: Comparison, path: Path, caption: str) -> None:
    lines, asked = found.lines, sorted(set(comparing.nfe))
    cells: list[list[tuple[Tensor, str] | None]] = []
    for line in lines:
        by_request = {asked[-1] if row.requested is None else row.requested: row for row in line.rows}
        shown = [by_request.get(nfe) for nfe in asked]
        row_cells = [
            None if row is None else (row.x, "" if row.nfe == nfe else f"{row.nfe}") for row, nfe in zip(shown, asked)
        ]
        truth = found.truth.get(line.model)
        cells.append(row_cells + ([] if not found.truth else [None if truth is None else (truth, "")]))
    columns = [f"{nfe} evaluations" for nfe in asked] + (["true flow"] if found.truth else [])
    plot.save_table(cells, [_name(line) for line in lines], columns, path, caption)
