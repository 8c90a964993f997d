"""Reading a run back: a directory alone is enough to sample from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser
from unidiff.errors import RunError
from unidiff.run.directory import RunDirectory
from unidiff.run.task import Run, load_recipe
from unidiff.sampling import Sampling
from unidiff.solver.sample import Solution, sample
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.device import arithmetic, resolve_device
from unidiff.training.trainable import Trainable

__all__ = ["draw", "load", "trained"]

M = TypeVar("M", bound=Trainable)


def draw(
    denoiser: Denoiser,
    sampling: Sampling,
    data: Dataset,
    precision: torch.dtype,
    *,
    keep: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Solution:
    """Draw samples as a recipe's `sampling` section says, in batches.

    Args:
        denoiser: The model; samples are drawn on its device.
        sampling: Solver, grid, count, batch and seed.
        data: What the model has learnt from: shape and decoder of the samples.
        precision: Number format of the network's arithmetic.
        keep: States of the first batch to keep, spread evenly over the grid; 0 for none.
        progress: Called with (steps done, steps in all) over all batches.
        **cond: Conditions, each with a row for each of all samples.

    Returns:
        The samples, decoded; states of the path are as the model sees them.
    """
    device = next(denoiser.parameters()).device
    seeds = range(sampling.seed, sampling.seed + sampling.count)
    options: dict[str, Any] = {"device": device, "batch": sampling.batch, "keep": keep, "progress": progress, **cond}
    with arithmetic(precision, device):
        solution = sample(denoiser, sampling.solver, sampling.grid, data.shape, seeds, **options)
    return replace(solution, x=torch.cat([data.decode(part) for part in solution.x.split(sampling.batch)]))


def load(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> Run:
    """Read a run of any kind: its recipe, and its newest checkpoint that is whole.

    Args:
        directory: The run directory.
        overrides: Values of the `sampling` section to replace: "sampling.solver.eta=1".
        device: Where the model is to be: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Receives a sentence for each damaged checkpoint that was passed over.

    Raises:
        RunError: If the directory holds no run, one without a usable checkpoint, or has lost what its data need.
        RecipeError: If an override cannot be used.
    """
    files = RunDirectory(Path(directory))
    if not files.exists():
        raise RunError(f"{directory}: not a run directory. `unidiff run RECIPE --out {directory}` creates one.")
    files.check_kept()
    for override in overrides:
        if not override.startswith("sampling."):
            remedy = "only `sampling` can be changed for a trained model, as in sampling.count=16."
            raise RunError(f"--set {override}: {remedy}")
    recipe = load_recipe(files.recipe, overrides, allow_imports=allow_imports)
    return recipe.load(Path(directory), device=device, report=report)


def trained(model: M, files: RunDirectory, device: str, report: Callable[[str], None]) -> tuple[M, int]:
    """A model with the averaged weights of the newest whole checkpoint, and the steps they have seen.

    Raises:
        RunError: If there is no such checkpoint, or its weights are not those of this model.
    """
    place = resolve_device(device)
    checkpoint = Checkpoints(files.checkpoints).load(report, place)
    if checkpoint is None:
        raise RunError(f"{files.path}: this run has no checkpoint yet. Train it with `unidiff run --resume`.")
    model.backbone.to(place).eval().requires_grad_(False)
    try:
        model.backbone.load_state_dict(checkpoint.ema)
    except RuntimeError as error:
        problem = "the weights are not those of the network in recipe.yaml. Restore the recipe as it was in training."
        raise RunError(f"{files.path}: {problem}") from error
    return model, checkpoint.step
