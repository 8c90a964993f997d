"""What `unidiff compare` does: exact models, or trained runs with the data they learned, are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, RunError
from unidiff.evaluation.compare import compare
from unidiff.evaluation.comparison import Comparison
from unidiff.evaluation.features import Discriminants
from unidiff.exact import GaussianMixture
from unidiff.run.directory import RunDirectory
from unidiff.run.records import DataFacts
from unidiff.run.task import Reporter
from unidiff.tasks.conditions import Condition, Conditioned, usual
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.training.device import resolve_device

if TYPE_CHECKING:
    from unidiff.tasks.comparison import SolverComparison

__all__ = ["compare_recipe"]

_MOST_DATA = 10_000  # samples of a split that are looked at
_SHOWN = 16  # samples of latents that are decoded for the picture
_MOST_PIXELS = 4096  # of an image whose discriminants are worth their time
# Of the flow of a trained model. A network is rough in time where it was trained at the entries of a table: on the 8x8
# digits (DDPM, 500 training steps) doubling from 32 to 256 steps moved the ends by 2.8, 1.7, 1.5 and 0.7 thousandths.
_TOLERANCE, _MOST_STEPS = 1e-3, 128


def compare_recipe(
    task: SolverComparison,
    reporter: Reporter,
    *,
    device: str = "auto",
    allow_imports: bool = False,
    condition: Condition = usual,
) -> tuple[Comparison, dict[str, Any]]:
    """Make a comparison.

    Args:
        task: What to compare.
        reporter: Who is told how it goes.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow_imports: Accept classes from outside unidiff in the recipes of runs.
        condition: (run, number of samples) -> the model to compare and the conditions of its samples.

    Returns:
        The comparison, and what it depends on beside its recipe, as plain values.

    Raises:
        UnidiffError: If something does not fit.
    """
    options: dict[str, Any] = {
        "seeds": range(task.seed, task.seed + task.count),
        "grid": task.grid,
        "batch": task.batch,
        "device": resolve_device(device),
        "progress": lambda done, total: reporter.progress("compare", done, total),
    }
    if task.runs:
        return _compare_runs(task, reporter, options, device, allow_imports, condition)
    assert task.data is not None
    assert task.data.mixture is not None
    assert task.process is not None
    denoiser = GaussianMixture(task.process, *task.data.mixture).to(options["device"])
    found = compare(denoiser, task.solvers, task.nfe, task.data.shape, **options)
    facts = {"model": "exact", "reference": f"the density of {task.data!r}", "features": None}
    return found, {"device": str(options["device"]), "precision": "float64", **facts}


def _compare_runs(
    task: SolverComparison,
    reporter: Reporter,
    options: dict[str, Any],
    device: str,
    allow_imports: bool,
    condition: Condition,
) -> tuple[Comparison, dict[str, Any]]:
    runs = [
        load_generation(run, device=device, allow_imports=allow_imports, report=reporter.notice) for run in task.runs
    ]
    _check_same_data(runs)
    models = [condition(run, task.count) for run in runs]
    cond = _same_conditions(runs, models, task.count)
    data = runs[0].recipe.data
    train, test = _splits(data)
    source = test or train
    if source.stand_in:
        reporter.notice(source.stand_in)
    reference, fresh = _matching(source, models[0], _MOST_DATA), None
    if test is not None and reference is not None:
        fresh = _matching(train, models[0], task.count)
    features = _features(train)
    names = [RunDirectory(run.directory).name for run in runs]
    labels = names if len(set(names)) == len(names) else [str(run.directory) for run in runs]
    size = max(1, torch.Size(data.shape).numel())
    found = compare(
        [("" if len(runs) == 1 else label, model.denoiser) for label, model in zip(labels, models)],
        task.solvers,
        task.nfe,
        data.shape,
        reference_data=reference,
        fresh_data=fresh,
        features=features,
        followed=max(64, -(-4096 // size)),  # about as many numbers, for points and for images
        dtype=torch.float32,
        tolerance=_TOLERANCE,
        most_steps=_MOST_STEPS,
        **{**options, **cond},
    )
    if data.coded:  # the distances are those of latents; the pictures are of what people look at
        rows = tuple(dataclasses.replace(row, x=_seen(data, row.x)) for row in found.rows)
        truth = {label: _seen(data, x) for label, x in found.truth.items()}
        found = dataclasses.replace(found, rows=rows, truth=truth)
    facts = {
        "model": [
            {"label": label, "directory": str(run.directory), "step": run.step} for label, run in zip(labels, runs)
        ],
        "conditions": _described(models[0]),
        "reference": None if reference is None else f"{source.name}, {len(reference)} samples, {source.checksum}",
        "stand_in": source.stand_in,
        "features": None if features is None else f"{len(features.directions)} linear discriminants of {train.name}",
    }
    return found, {"device": str(options["device"]), "precision": "float32", **facts}


def _seen(data: Dataset, x: Tensor) -> Tensor:
    """The first samples of a cell, decoded."""
    return data.decode(x[:_SHOWN])


def _check_same_data(runs: Sequence[GenerationRun]) -> None:
    """Refuse to compare models of different data: a stand-in, too, is other data."""
    first, *others = runs
    for other in others:
        pairs = [(run.directory, run.recipe.data, run.manifest.data) for run in (first, other)]
        if pairs[0][1] != pairs[1][1]:
            said = " and ".join(f"{directory} was trained on {data!r}" for directory, data, _ in pairs)
            raise RunError(f"{said}: models of different data cannot be compared.")
        if _checksum(pairs[0][2]) != _checksum(pairs[1][2]):
            said = " and ".join(
                f"{directory} was trained on {found.name} ({found.checksum})" for directory, _, found in pairs if found
            )
            raise RunError(f"{said}: models of different data cannot be compared.")


def _checksum(found: DataFacts | None) -> str | None:
    return None if found is None else found.checksum


def _splits(data: Dataset) -> tuple[OpenDataset, OpenDataset | None]:
    """The train split, and the test split where there is one."""
    train = data.open()
    try:
        return train, data.open("test")
    except DataError:
        return train, None


def _same_conditions(runs: Sequence[GenerationRun], models: Sequence[Conditioned], count: int) -> dict[str, Tensor]:
    """The conditions of the samples, which must be those of all runs."""
    first, *others = (model.in_turn(count) for model in models)
    for run, other in zip(runs[1:], others):
        if first.keys() != other.keys() or not all(torch.equal(first[name], other[name]) for name in first):
            names = " and ".join(", ".join(cond) or "no conditions" for cond in (first, other))
            problem = f"{runs[0].directory} and {run.directory} draw samples under different conditions ({names})"
            raise RunError(f"{problem}. Compare them one at a time.")
    return first


def _described(model: Conditioned) -> str | None:
    """The conditions in words; None if there are none."""
    cond = model.examples.cond
    if "label" in cond:
        return f"classes {', '.join(map(str, cond['label'].unique().tolist()))} in turn"
    if "image" in cond:
        kind = "test images" if model.examples.truth is not None else "images given"
        return f"{kind} in turn, {len(cond['image'])} of them"
    return None


def _matching(source: OpenDataset, model: Conditioned, count: int) -> Tensor | None:
    """At most `count` samples of the distribution that a perfect model would draw from, chosen at random once.

    With classes in turn that is as many of each class; None where the data have no samples of it, as of images given.
    """
    label, order = model.examples.cond.get("label"), torch.randperm(len(source), generator=_generator())
    if label is not None:
        if source.labels is None:
            return None
        rows = [order[source.labels[order] == k] for k in label.unique()]
        each = min([count // len(rows), *map(len, rows)])
        if each * len(rows) < 10:
            names = ", ".join(map(str, label.unique().tolist()))
            raise RunError(f"{source.name} has too few samples of the classes {names}: a comparison needs at least 10.")
        order = torch.cat([part[:each] for part in rows])
    elif model.examples.cond and model.examples.truth is None:
        return None
    return source.batch(order[:count].sort().values)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _features(train: OpenDataset) -> Discriminants | None:
    """The feature space of labelled images; None for other data."""
    if train.labels is None or len(train.shape) != 3 or torch.Size(train.shape).numel() > _MOST_PIXELS:
        return None
    order = torch.randperm(len(train), generator=_generator())[:_MOST_DATA]
    labels = train.labels[order]
    return Discriminants.fit(train.batch(order), labels) if len(labels.unique()) > 1 else None
