"""The models that `unidiff compare` compares, an exact one or trained runs, and their reference data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff.data.base import OpenDataset
from unidiff.errors import DataError, ParameterError, RunError
from unidiff.evaluation.compare import compare, planned
from unidiff.evaluation.comparison import Comparison
from unidiff.evaluation.features import Discriminants
from unidiff.exact import GaussianMixture
from unidiff.run.directory import RunDirectory
from unidiff.run.load import LoadOptions
from unidiff.run.task import Reporter
from unidiff.tasks.conditioned import conditioned
from unidiff.tasks.generation import Conditioned, GenerationRun
from unidiff.tasks.parts import load_with_parts
from unidiff.text import count_of
from unidiff.training.device import resolve_device

if TYPE_CHECKING:
    from unidiff.tasks.comparison import SolverComparison
    from unidiff.tasks.sample_conditions import SampleConditions

__all__ = ["check_recipe", "check_same_runs", "compare_recipe", "described", "read_runs"]

_MOST_DATA = 10_000  # samples of a split that are used
_FEWEST = 10  # samples that distances are measured from
_DECODED = 16  # samples of latents that are decoded for the figure
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
) -> tuple[Comparison, dict[str, Any]]:
    """Make a comparison.

    Args:
        task: What to compare.
        reporter: Receives progress and notices.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow_imports: Accept classes from outside unidiff in the recipes of runs.

    Returns:
        The comparison, and what it depends on beside its recipe, as plain values.
    """
    options: dict[str, Any] = {
        "seeds": range(task.seed, task.seed + task.count),
        "grid": task.grid,
        "steps": task.steps,
        "batch": task.batch,
        "device": resolve_device(device),
        "progress": lambda done, total: reporter.progress("compare", done, total),
        "flow_progress": lambda done, total: reporter.progress("reference", done, total),
    }
    if task.runs:
        runs, models = _read(task, device, allow_imports, reporter)
        comparison, facts = _compare_runs(task, runs, models, reporter, options)
    else:
        assert task.data is not None
        denoiser = _exact(task).to(options["device"])
        comparison = compare(denoiser, task.solvers, task.nfes, task.data.shape, **options)
        facts = {"model": "exact", "reference": f"the density of {task.data!r}", "features": None}
    for note in comparison.notes:
        reporter.notice(note)
    precision = "float32" if task.runs else "float64"
    return comparison, {"device": str(options["device"]), "precision": precision, **facts}


def check_recipe(task: SolverComparison, reporter: Reporter, *, device: str, allow_imports: bool) -> None:
    """Read the runs of a comparison, and raise an error if its models, conditions and solvers do not fit each other."""
    if task.runs:
        runs, models = _read(task, device, allow_imports, reporter)
        check_same_runs(runs)
        _same_conditions(runs, models, task.count)
        labelled, shape = [(str(run.directory), model.denoiser) for run, model in zip(runs, models)], None
        shape = runs[0].recipe.data.shape
    else:
        assert task.data is not None
        labelled, shape = [("", _exact(task))], task.data.shape
    for note in planned(labelled, task.solvers, task.nfes, shape, task.grid, task.steps)[1]:
        reporter.notice(note)


def _exact(task: SolverComparison) -> GaussianMixture:
    assert task.data is not None
    assert task.data.mixture is not None
    assert task.process is not None
    return GaussianMixture(task.process, *task.data.mixture)


def _read(
    task: SolverComparison, device: str, allow_imports: bool, reporter: Reporter
) -> tuple[list[GenerationRun], list[Conditioned]]:
    loading = LoadOptions(device=device, allow_imports=allow_imports, report=reporter.notice)
    return read_runs(task.runs, task.conditions, task.count, loading)


def read_runs(
    paths: Sequence[Path], chosen: SampleConditions | None, count: int, loading: LoadOptions
) -> tuple[list[GenerationRun], list[Conditioned]]:
    """Runs, and the model of each with the conditions of `count` samples; the default ones if none are chosen.

    Raises:
        RunError: If a run is missing.
        ParameterError: If the conditions do not fit one.
    """
    try:
        runs = [load_with_parts(path, chosen, **loading) for path in paths]
        if chosen is None:
            return runs, [run.conditioned(count) for run in runs]
        defaults = [None if chosen.images or chosen.mask else run.conditioned(count).examples for run in runs]
        return runs, [conditioned(run, chosen, default, **loading) for run, default in zip(runs, defaults)]
    except ParameterError as error:
        raise ParameterError(f"conditions.{error.parameter}", error.problem) from error


def _compare_runs(
    task: SolverComparison,
    runs: Sequence[GenerationRun],
    models: Sequence[Conditioned],
    reporter: Reporter,
    options: dict[str, Any],
) -> tuple[Comparison, dict[str, Any]]:
    check_same_runs(runs)
    cond = _same_conditions(runs, models, task.count)
    data = runs[0].recipe.data
    train: OpenDataset | None = None if data.unknown else data.open()
    test: OpenDataset | None = None
    with suppress(DataError):  # there may be no test split
        test = data.open("test")
    source = test or train
    if source is not None and source.stand_in:
        reporter.notice(source.stand_in)
    reference = fresh = None
    for own in (test, train):  # of few samples a tenth, which is held out, is too small
        if own is not None and (reference := _reference(own, models[0], _MOST_DATA)) is not None:
            source = own
            break
    if source is not None and len(source) < _FEWEST:
        held = count_of(len(source), "sample")
        reporter.notice(f"{source.name} has {held}, and distances need {_FEWEST}: there are none.")
    if train is not None and reference is not None and source is test:
        fresh = _reference(train, models[0], task.count)
    features = None if train is None else _features(train)
    names = [RunDirectory(run.directory).name for run in runs]
    labels = names if len(set(names)) == len(names) else [str(run.directory) for run in runs]
    size = max(1, torch.Size(data.shape).numel())
    comparison = compare(
        [("" if len(runs) == 1 else label, model.denoiser) for label, model in zip(labels, models)],
        task.solvers,
        task.nfes,
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
    if data.coded:  # the distances are those of latents, the figure shows decoded samples
        rows = tuple(replace(row, x=data.decode(row.x[:_DECODED])) for row in comparison.rows)
        truth = {label: data.decode(x[:_DECODED]) for label, x in comparison.truth.items()}
        comparison = replace(comparison, rows=rows, truth=truth)
    return comparison, {
        "model": [
            {"label": label, "directory": str(run.directory), "step": run.step, "digest": run.digest}
            for label, run in zip(labels, runs)
        ],
        "conditions": described(models[0]),
        "reference": None
        if source is None or reference is None
        else f"{source.name}, {count_of(len(reference), 'sample')}, {source.checksum}",
        "stand_in": None if source is None else source.stand_in,
        "features": None
        if train is None or features is None
        else f"{len(features.directions)} linear discriminants of {train.name}",
    }


def check_same_runs(runs: Sequence[GenerationRun]) -> None:
    """Raise a RunError for models of different data; a stand-in is other data too."""
    for other in runs[1:]:
        pair = runs[0], other
        if any(run.recipe.data.unknown for run in pair) and len({run.recipe.data.shape for run in pair}) == 1:
            continue  # as far as anybody knows
        names: list[object] = [run.recipe.data for run in pair]
        if names[0] == names[1]:
            names = [data and f"{data.name} ({data.checksum})" for data in (run.manifest.data for run in pair)]
            checksums = {data and data.checksum for data in (run.manifest.data for run in pair)}
            if len(checksums) == 1:
                continue
        learned = " and ".join(f"{run.directory} was trained on {name}" for run, name in zip(pair, names))
        raise RunError(f"{learned}: models of different data cannot be compared.")


def _same_conditions(runs: Sequence[GenerationRun], models: Sequence[Conditioned], count: int) -> dict[str, Tensor]:
    """The conditions of the samples, which must be those of all runs."""
    first, *others = (model.in_turn(count) for model in models)
    for run, other in zip(runs[1:], others):
        if first.keys() != other.keys() or not all(torch.equal(first[name], other[name]) for name in first):
            names = " and ".join(", ".join(cond) or "no conditions" for cond in (first, other))
            problem = f"{runs[0].directory} and {run.directory} draw samples under different conditions ({names})"
            raise RunError(f"{problem}. Compare them one at a time.")
    return first


def described(model: Conditioned) -> str | None:
    """The conditions in words; None if there are none."""
    cond, truth = model.examples
    words: list[str] = []
    if "image" in cond:
        words.append(f"{'images given' if truth is None else 'test images'} in turn, {len(cond['image'])} of them")
    if "label" in cond:
        words.append(f"classes {', '.join(map(str, cond['label'].unique().tolist()))} in turn")
    others = {name: value for name, value in cond.items() if name not in ("image", "label")}
    words += [f"{count_of(len(value), 'value')} of {name} in turn" for name, value in others.items()]
    return "; ".join(words) or None


def _reference(source: OpenDataset, model: Conditioned, count: int) -> Tensor | None:
    """At most `count` samples of the distribution that the model should have, chosen at random once.

    For classes in turn, as many of each class; None if the data have no samples of it, as for a user's images, or too
    few.
    """
    label, order = model.examples.cond.get("label"), _shuffled(source)
    if label is not None:
        if source.labels is None:
            return None
        rows = [order[source.labels[order] == k] for k in label.unique()]
        each = min([count // len(rows), *map(len, rows)])
        order = torch.cat([of_class[:each] for of_class in rows])
    elif model.examples.cond and model.examples.truth is None:
        return None
    return source.batch(order[:count].sort().values) if len(order) >= _FEWEST else None


def _shuffled(source: OpenDataset) -> Tensor:
    return torch.randperm(len(source), generator=torch.Generator().manual_seed(0))


def _features(train: OpenDataset) -> Discriminants | None:
    """The feature space of labelled images, signals or volumes; None for other data."""
    if train.labels is None or len(train.shape) < 2 or torch.Size(train.shape).numel() > _MOST_PIXELS:
        return None
    order = _shuffled(train)[:_MOST_DATA]
    labels = train.labels[order]
    return Discriminants.fit(train.batch(order), labels) if len(labels.unique()) > 1 else None
