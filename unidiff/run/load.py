"""Runs: read back from a directory, and sampled."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.data.base import Dataset
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.display import Pictured
from unidiff.errors import RecipeError, RunError
from unidiff.noise import global_states_kept
from unidiff.pretrained import is_saved
from unidiff.reading import read_bytes
from unidiff.run.directory import RunDirectory
from unidiff.run.extension import require_own_recipe
from unidiff.run.records import Manifest
from unidiff.run.shipped import not_a_run, run_digest
from unidiff.run.task import Task, load_recipe
from unidiff.search_paths import expand
from unidiff.solver.sample import Sampling, Solution, draw_samples
from unidiff.training.device import arithmetic
from unidiff.training.trainable import Trainable

__all__ = ["LoadOptions", "Run", "draw", "load"]

# By name, as a `type` of a recipe is found: what reads models of diffusers is above this package.
_DIFFUSERS = "unidiff.interop.diffusers.pipeline"


@dataclass(frozen=True, repr=False)
class Run(Pictured):
    """A trained model with everything that made it.

    Attributes:
        directory: Where it was read from.
        recipe: The resolved recipe, with any overrides of its `sampling` section.
        manifest: What was recorded when it was made.
        model: The model with averaged weights, in evaluation mode.
        step: Optimiser steps that the weights have seen.
        precision: Number format of the network's arithmetic on its device.
    """

    directory: Path
    recipe: Task
    manifest: Manifest
    model: Trainable
    step: int
    precision: torch.dtype

    def in_short(self) -> dict[str, Any]:
        """See `Displayed.in_short`."""
        return {"directory": self.directory, "recipe": self.recipe.noun, "model": self.model, "step": self.step}

    def plot(self) -> Any:
        """Samples, drawn as the recipe says but at most 16, as a matplotlib Figure.

        Their conditions are all classes in turn, or those of test images; null ones where the data are missing.

        Raises:
            RecipeError: If the model is not a generative one.
        """
        return self.sample().plot()

    def _repr_png_(self) -> bytes | None:
        """The newest picture of samples, or the curve of the loss, that the directory has."""
        files = RunDirectory(self.directory)
        found = sorted(files.samples.glob("*.png"), key=lambda path: path.stat().st_mtime)
        return next((read_bytes(path) for path in (*found[::-1], files.loss_curve) if path.is_file()), None)

    @property
    def denoiser(self) -> NeuralDenoiser:
        """The model.

        Raises:
            RecipeError: If it is not a generative model.
        """
        raise RecipeError(f"{self.directory}: this run is {self.recipe.noun}; it does not generate samples.")

    @property
    def digest(self) -> str:
        """The digest of its recipe and its averaged weights: what another run that builds on this one pins."""
        files = RunDirectory(self.directory)
        weights = files.checkpoints / f"step-{self.step:08d}" / "ema.safetensors"
        return run_digest(files.recipe, weights)

    def sample(
        self,
        sampling: Sampling | None = None,
        *,
        keep: int = 0,
        progress: Callable[[int, int], None] | None = None,
        **cond: Tensor,
    ) -> Solution:
        """Draw samples, by default as the recipe says.

        Args:
            sampling: Solver, grid, count, batch and seed; the recipe's own if None.
            keep: States of the first batch to keep; see `unidiff.sample`.
            progress: Called with (steps done, steps in all).
            **cond: Conditions, such as `label`, (count,).

        Raises:
            RecipeError: If the model is not a generative one.
        """
        raise RecipeError(f"{self.directory}: this run is {self.recipe.noun}; it does not generate samples.")


def draw(
    denoiser: Denoiser,
    sampling: Sampling,
    data: Dataset,
    precision: torch.dtype,
    *,
    seeds: Sequence[int] | None = None,
    keep: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Solution:
    """Draw samples in batches, on the model's device; see `unidiff.sample`. The caller reports those not finite.

    Args:
        denoiser: The model.
        sampling: Solver, grid, count, batch and seed.
        data: The training data: shape and decoder of the samples.
        precision: Number format of the network's arithmetic.
        seeds: One for each sample, in place of those that follow `sampling.seed`.
        keep: States of the first batch to keep, spread evenly over the grid; 0 for none.
        progress: Called with (steps done, steps in all) over all batches.
        **cond: Conditions, each with a row per sample.

    Returns:
        The samples, decoded; states of the path are not.
    """
    device = next(denoiser.parameters()).device
    seeds = range(sampling.seed, sampling.seed + sampling.count) if seeds is None else seeds
    options: dict[str, Any] = {"device": device, "batch": sampling.batch, "keep": keep, "progress": progress, **cond}
    with arithmetic(precision, device):
        model = sampling.accelerated(denoiser)
        solution = draw_samples(model, sampling.solver, sampling.grid, data.shape, seeds, **options)
    return replace(solution, x=torch.cat([data.decode(part) for part in solution.x.split(sampling.batch)]))


class LoadOptions(TypedDict, total=False):
    """Options of `load`."""

    device: str
    allow_imports: bool
    report: Callable[[str], None]


@plain_arguments
@global_states_kept()  # networks draw fresh weights before they get those of a checkpoint
def load(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> Run:
    """Read any run: its recipe, and its newest undamaged checkpoint.

    Args:
        directory: The run directory, or shipped:NAME, a model that comes with unidiff: shipped:ddpm_digits. Also a
            folder that diffusers saved, or OWNER/NAME (hub:OWNER/NAME) on the Hugging Face hub.
        overrides: Values of the `sampling` section to replace: "sampling.solver.eta=1"; of what diffusers saved, also
            of its scheduler's config: "scheduler.clip_sample=false".
        device: Where the model is loaded: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Receives a sentence for each damaged checkpoint that is skipped.

    Raises:
        RunError: If there is no run, it has no usable checkpoint, or files that its data need are missing.
        RecipeError: If an override cannot be used.
    """
    files = RunDirectory(place := expand(directory, "run"))
    if not files.exists():
        if is_saved(place):
            options: dict[str, Any] = {"device": device, "allow_imports": allow_imports, "report": report}
            pipeline: Run = importlib.import_module(_DIFFUSERS).load_pipeline(place, overrides, **options)
            return pipeline
        raise not_a_run(directory)
    files.check_kept()
    for override in overrides:
        if not override.startswith("sampling."):
            raise RunError(f"--set {override}: only `sampling` keys apply to a trained model, as in sampling.count=16.")
    recipe = load_recipe(files.recipe, overrides, allow_imports=allow_imports)
    require_own_recipe(files, recipe, allow_imports=allow_imports)
    return recipe.load(place, device=device, report=report)
