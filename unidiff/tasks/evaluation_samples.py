"""The samples that are evaluated: drawn from runs, or read from folders of images and arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unidiff.data.base import Dataset, check_range, scaled
from unidiff.data.image import decode
from unidiff.data.listing import list_images
from unidiff.errors import DataError, ParameterError, RunError
from unidiff.evaluation.compare import planned
from unidiff.evaluation.cost import measured
from unidiff.evaluation.distances import Estimate
from unidiff.files import digest, digest_of
from unidiff.grid import default_grid
from unidiff.pretrained import is_saved
from unidiff.reading import map_array
from unidiff.run.directory import RunDirectory
from unidiff.run.load import LoadOptions
from unidiff.run.shared import Processes
from unidiff.run.task import Reporter
from unidiff.solver.sample import Sampling
from unidiff.solver.spec import SolverSpec
from unidiff.tasks.comparison_models import check_same_runs, described, read_runs
from unidiff.tasks.evaluation_bits import bits_per_dim
from unidiff.tasks.generation import Conditioned, GenerationRun
from unidiff.text import count_of, rows_of

if TYPE_CHECKING:
    from unidiff.tasks.evaluation import EvaluationTask

__all__ = ["Drawn", "Sets", "open_sets"]

_FEWEST = 20  # samples


@dataclass(frozen=True, eq=False)
class Drawn:
    """One set of samples.

    Attributes:
        name: What it is called.
        x: The samples in pixels, (N, *shape), on the CPU.
        facts: Where they are from.
        cost: What drawing them took.
        measures: What is known of their model beside them.
    """

    name: str
    x: Tensor
    facts: dict[str, Any]
    cost: dict[str, float] = field(default_factory=dict)
    measures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A set of samples that will be drawn."""

    name: str
    run: GenerationRun
    model: Conditioned
    sampling: Sampling


@dataclass(frozen=True, eq=False)
class Sets:
    """All sets of an evaluation, checked but not drawn.

    Attributes:
        task: The evaluation.
        data: The real data.
        plans: What is drawn from runs.
        files: The folders and arrays.
        classes: The classes of the samples; None if they have none.
        notes: What the user must know.
    """

    task: EvaluationTask
    data: Dataset
    plans: Sequence[_Plan]
    files: Sequence[Path]
    classes: Tensor | None
    notes: Sequence[str]

    def __len__(self) -> int:
        return len(self.plans) + len(self.files)

    def drawn(self, reporter: Reporter, processes: Processes) -> Iterator[Drawn]:
        """The sets, one after another, each drawn by all processes together."""
        bits: dict[Path, dict[str, Estimate]] = {}
        for plan in self.plans:
            if self.task.bits and plan.run.directory not in bits:
                bits[plan.run.directory] = bits_per_dim(plan.run, self.task, reporter)
            yield _draw(plan, bits.get(plan.run.directory, {}), reporter, processes)
        shape = self.data.decoded_shape
        for path in self.files:
            read = _read_array if path.suffix == ".npy" else _read_folder
            yield Drawn(str(path), *read(path, shape, self.task.count))


def open_sets(task: EvaluationTask, reporter: Reporter, device: torch.device, allow_imports: bool) -> Sets:
    """Read the runs of an evaluation and plan what is drawn from them.

    Raises:
        UnidiffError: If something is missing or does not fit.
    """
    paths, files = [], []
    for path in map(Path, task.evaluate):
        if RunDirectory(path).exists() or is_saved(path):
            paths.append(path)
        elif os.path.isdir(path) or (path.suffix == ".npy" and os.path.isfile(path)):
            files.append(path)
        else:
            raise RunError(f"{path}: neither a run directory, nor a folder of images, nor a .npy file of samples.")
    if not paths:
        for name in ("solvers", "nfe", "steps", "bits", "conditions"):
            if getattr(task, name):
                some = (
                    "--class, --guidance and the like are options" if name == "conditions" else f"--{name} is an option"
                )
                raise RunError(f"{files[0]}: {some} of runs, and none is evaluated. Leave it out.")
    loading = LoadOptions(device=str(device), allow_imports=allow_imports, report=reporter.notice)
    runs, models = read_runs(paths, task.conditions, task.count, loading)
    check_same_runs(runs)
    data = task.data or next((run.recipe.data for run in runs if not run.recipe.data.unknown), None)
    if data is None:
        first = task.evaluate[0]
        raise ParameterError("data", f"it is missing. Give the data that the samples of {first} are to be like.")
    for run in runs:
        if task.bits and run.recipe.data.coded:
            problem = f"{run.directory} is a latent model, whose density is not the likelihood of images"
            raise ParameterError("bits", f"{problem}. Leave it out.")
        if run.recipe.data.decoded_shape != data.decoded_shape:
            shapes = f"samples of {run.recipe.data.decoded_shape}, as {run.directory}, got {data.decoded_shape}"
            raise ParameterError("data", f"must have {shapes}")
    labels = [model.in_turn(task.count).get("label") for model in models]
    classes = [None if label is None else tuple(label.unique().tolist()) for label in labels]
    if len({*classes}) > 1:
        raise RunError(
            "The runs draw samples of different classes, whose references differ. Evaluate them one at a time."
        )
    chosen = None if not classes or classes[0] is None else torch.tensor(classes[0])
    plans, notes = _plans(task, runs, models)
    return Sets(task, data, plans, files, chosen, notes)


def _plans(
    task: EvaluationTask, runs: Sequence[GenerationRun], models: Sequence[Conditioned]
) -> tuple[list[_Plan], list[str]]:
    names = [RunDirectory(run.directory).name for run in runs]
    labels = names if len(set(names)) == len(names) else [str(run.directory) for run in runs]
    plans, notes = [], []
    for label, run, model in zip(labels, runs, models):
        own = replace(run.recipe.sampling, count=task.count, batch=task.batch, seed=task.seed)
        if not task.nfe and not task.steps:
            plans.append(_Plan(label, run, model, own))
            continue
        # A table's own times have one number of evaluations.
        usual, grid = default_grid(run.recipe.process), own.grid_for(run.recipe.process)
        grid = grid if grid.with_steps(1) is not None and not task.solvers else usual
        pairs = [(label, model.denoiser)]
        chosen = task.solvers or [(own.solver, grid)]
        every, missed = planned(pairs, chosen, task.nfe, run.recipe.data.shape, grid, task.steps)
        notes += missed
        for _, _, plan in every:
            at = "" if plan.requested is None else f", {plan.requested}{' steps' if task.steps else ''}"
            sampling = replace(own, solver=plan.spec.solver, grid=plan.spec.grid)
            plans.append(_Plan(f"{label}, {plan.spec.label}{at}", run, model, sampling))
    return plans, notes


def _draw(plan: _Plan, measures: dict[str, Estimate], reporter: Reporter, processes: Processes) -> Drawn:
    run, sampling = plan.run, plan.sampling
    cond: dict[str, Any] = dict(plan.model.in_turn(sampling.count))

    def drawn() -> tuple[Tensor, int]:
        solution = processes.draw(
            plan.model.denoiser,
            sampling,
            run.recipe.data,
            run.precision,
            progress=lambda done, total: reporter.progress("sample", done, total),
            **cond,
        )
        return solution.x.cpu(), solution.nfe  # which waits for the device

    (x, nfe), cost = measured(drawn, sampling.count)
    if (conditioning := run.recipe.conditions()) is not None:
        x = conditioning.compose(x, cond)
    grid = sampling.grid_for(run.recipe.process)
    facts = {
        "run": str(run.directory),
        "digest": run.digest,
        "step": run.step,
        "solver": SolverSpec(sampling.solver, grid).label,
        "grid": repr(grid),
        "conditions": described(plan.model),
        "seed": sampling.seed,
        "precision": str(run.precision).removeprefix("torch."),
    }
    return Drawn(plan.name, x, facts, {"nfe": nfe, **cost}, measures)


def _read_folder(path: Path, shape: tuple[int, ...], count: int) -> tuple[Tensor, dict[str, Any]]:
    """The first images of a folder by name, in the shape of the data."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(f"{path}: the data have samples of shape {shape}, no square images. Pass a .npy array.")
    if not (files := list_images(path).files):
        raise DataError(f"{path}: neither a run directory, nor a folder of images: it contains no images.")
    chosen = files[:count]
    _require_enough(path, len(chosen))
    images = torch.stack([decode(path / name, shape[1], shape[0]) for name in chosen])
    pixels = digest_of([images.numpy().tobytes()])
    return scaled(images), {"folder": str(path), "digest": pixels, "images": len(files)}


def _read_array(path: Path, shape: tuple[int, ...], count: int) -> tuple[Tensor, dict[str, Any]]:
    """The first samples of an array: floats in the range of the data, or uint8."""
    array = map_array(path, "evaluate")
    if tuple(array.shape[1:]) != shape or (array.dtype.kind != "f" and array.dtype != np.uint8):
        expected = f"{rows_of(shape)}, floats or uint8"
        raise DataError(f"{path} must hold samples {expected}, got {array.dtype} of shape {array.shape}.")
    _require_enough(path, len(array))
    values = torch.from_numpy(np.array(array[:count]))
    if values.is_floating_point() and (broken := ~values.isfinite().flatten(1).all(1)).any():
        problem = f"contains NaN or infinity, first in sample {int(broken.int().argmax())}"
        raise DataError(f"{path} {problem}. Remove such samples.")
    try:
        x = scaled(values) if values.dtype == torch.uint8 else check_range(values, "evaluate", image=values.ndim > 3)
    except ParameterError as error:
        raise DataError(f"{path} {error.problem}.") from error
    if values.ndim > 3 and values.dtype != torch.uint8 and 0 <= float(x.min()) < float(x.max()) <= 1:
        holds = f"{path} holds values from {float(x.min()):g} to {float(x.max()):g}, which are mid-grey to white"
        warnings.warn(f"{holds}. If 0 is black and 1 white, save 2 x - 1.", stacklevel=2)
    return x, {"file": str(path), "digest": digest(path), "samples": len(array)}


def _require_enough(path: Path, count: int) -> None:
    if count < _FEWEST:
        raise DataError(f"{path} has {count_of(count, 'sample')}; at least {_FEWEST} are needed.")
