"""Reading a run back: a directory alone is enough to sample from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.classifier import NeuralClassifier
from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import RunError
from unidiff.recipe.recipe import Recipe, load_recipe
from unidiff.run.classifying import Classifying, load_classifying
from unidiff.run.directory import RunDirectory
from unidiff.sampling import Sampling
from unidiff.solver.sample import Solution, sample
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.device import arithmetic, resolve_device, resolve_precision

__all__ = ["Run", "draw", "load", "load_classifier"]


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


@dataclass(frozen=True)
class Run:
    """A trained model with everything that made it.

    Attributes:
        directory: Where it was read from.
        recipe: The resolved recipe, with any overrides of its `sampling` section.
        manifest: What was recorded when it was made.
        denoiser: The model with averaged weights, in evaluation mode.
        step: Optimiser steps that the weights have seen.
        precision: Number format of the network's arithmetic on its device.
    """

    directory: Path
    recipe: Recipe
    manifest: dict[str, Any]
    denoiser: NeuralDenoiser
    step: int
    precision: torch.dtype

    def sample(self, sampling: Sampling | None = None, **options: Any) -> Solution:
        """Draw samples, by default as the recipe says.

        Args:
            sampling: Solver, grid, count, batch and seed; the recipe's own if None.
            **options: `keep` and `progress` of `unidiff.sample`; conditions, such as `label`, (count,).
        """
        return draw(self.denoiser, sampling or self.recipe.sampling, self.recipe.data, self.precision, **options)


def load(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> Run:
    """Read a run: its recipe, and its newest checkpoint that is whole.

    Args:
        directory: The run directory.
        overrides: Values of the `sampling` section to replace: "sampling.solver.eta=1".
        device: Where the model is to be: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Told of damaged checkpoints that were passed over.

    Raises:
        RunError: If the directory holds no run, one without a usable checkpoint, or has lost what its data need.
        RecipeError: If an override cannot be used.
    """
    files = RunDirectory(Path(directory))
    if not files.exists():
        raise RunError(f"{directory}: this is no run directory. `unidiff run RECIPE --out {directory}` makes one.")
    files.check_kept()
    for override in overrides:
        if not override.startswith("sampling."):
            remedy = "only `sampling` can be changed of a trained model, as in sampling.count=16."
            raise RunError(f"--set {override}: {remedy}")
    recipe = load_recipe(files.recipe, overrides, allow_imports=allow_imports)
    denoiser, step = _trained(recipe, files, device, report)
    precision = resolve_precision(recipe.training.precision, next(denoiser.parameters()).device)
    return Run(Path(directory), recipe, files.read_manifest(), denoiser, step, precision)


def load_classifier(
    directory: str | Path,
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> NeuralClassifier:
    """Read a trained classifier of noisy states.

    Args:
        directory: The run directory of a recipe that has a `classifier`.
        device: Where it is to be: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Told of damaged checkpoints that were passed over.

    Raises:
        RunError: If the directory holds no run, or one without a usable checkpoint.
        RecipeError: If the run is not that of a classifier.
    """
    files = RunDirectory(Path(directory))
    if not files.exists():
        raise RunError(f"{directory}: this is no run directory. `unidiff run RECIPE --out {directory}` makes one.")
    files.check_kept()
    recipe = load_classifying(files.recipe, allow_imports=allow_imports)
    classifier: NeuralClassifier = _trained(recipe, files, device, report)[0]
    return classifier


def _trained(
    recipe: Recipe | Classifying, files: RunDirectory, device: str, report: Callable[[str], None]
) -> tuple[Any, int]:
    """The model with the averaged weights of the newest whole checkpoint, and the steps they have seen."""
    place = resolve_device(device)
    checkpoint = Checkpoints(files.checkpoints).load(report, place)
    if checkpoint is None:
        raise RunError(f"{files.path}: this run has no checkpoint yet. Train it with `unidiff run --resume`.")
    model = recipe.model(files.measured(recipe.process))
    model.backbone.to(place).eval().requires_grad_(False)
    try:
        model.backbone.load_state_dict(checkpoint.ema)
    except RuntimeError as error:
        problem = "the weights are not those of the network in recipe.yaml. Restore the recipe as it was in training."
        raise RunError(f"{files.path}: {problem}") from error
    return model, checkpoint.step
