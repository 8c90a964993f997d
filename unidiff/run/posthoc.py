"""The model of a run with an average of its weights whose length is chosen after training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import RunError
from unidiff.machine import now
from unidiff.reading import Unreadable, read_bytes
from unidiff.run.directory import RunDirectory
from unidiff.run.environment import environment
from unidiff.run.extension import SAVED
from unidiff.run.load import Run, load
from unidiff.run.shipped import require_own
from unidiff.training.checkpoint import Checkpoint, Checkpoints
from unidiff.training.power_average import Snapshots

__all__ = ["posthoc_ema"]

_NEAR = 0.1  # a profile that is missed by more of its norm is another one
_FACTS = ("seed", "device", "processes", "precision", "data", "parameters", "trained", "start", "teacher", "coupling")


@plain_arguments
def posthoc_ema(
    directory: str | Path,
    sigma_rel: float,
    *,
    step: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> Run:
    """Read a run with an average of its weights of any length (Karras et al. 2024, section 3).

    It was trained with `Training.posthoc_every`. The average is the sum of its snapshots that is nearest in its profile
    over the steps; how near is in the manifest, as `posthoc_ema`.

    Args:
        directory: The run directory.
        sigma_rel: Length of the average: the standard deviation of its profile as a share of the steps so far, above 0
            and below 0.288, the mean of all steps. It is exact for 0.05 and 0.1, and near between and somewhat beside.
        step: The step at which the average ends, one with a snapshot; None for the last.
        out: Also write the model as a run of its own, which `unidiff.load` and the command line take.
        overwrite: Replace a run at `out`.
        device: Where the model is loaded: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Receives a sentence if the average can only be met roughly.

    Returns:
        The run, its model with these weights.

    Raises:
        RunError: If there is no such run, it has no snapshots, or `out` cannot be written.
        ParameterError: If there is no such average.
    """
    run = load(directory, device=device, allow_imports=allow_imports, report=report)
    files = RunDirectory(run.directory)
    snapshots = Snapshots(Checkpoints(files.checkpoints).averages)
    taken = [taken for taken, _ in snapshots.paths()]
    if not taken:
        remedy = "Train with training.posthoc_every, such as --set training.posthoc_every=100"
        raise RunError(f"{directory}: this run has no snapshots to average. {remedy}.")
    target = None if out is None else RunDirectory(require_own(out))
    if target is not None and os.path.realpath(target.path) == os.path.realpath(files.path):
        raise RunError(f"{out}: this is the run that is read, which would be replaced. Choose another directory.")
    network, step = run.model.backbone, taken[-1] if step is None else step
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    try:
        weights, made = snapshots.mixed(step, sigma_rel, names)
        network.load_state_dict(weights)
    except (Unreadable, RuntimeError, LookupError) as error:
        problem = f"a snapshot in {snapshots.folder} is damaged ({error})"
        raise RunError(f"{directory}: {problem}. Remove the files of its step.") from error
    if made.error > _NEAR:
        remedy = "Choose a length nearer to 0.05 or 0.1, or train with a smaller training.posthoc_every"
        report(f"{directory}: sigma_rel = {sigma_rel} at step {step} is met to within {made.error:.0%} only. {remedy}.")
    facts = {"run": str(directory), "digest": run.digest, "sigma_rel": sigma_rel, "step": step, "error": made.error}
    if target is not None:
        _write(target, run, step, weights, overwrite, facts)
        return load(target.path, device=device, allow_imports=allow_imports, report=report)
    return replace(
        run, step=step, manifest=replace(run.manifest, entries={**run.manifest.entries, "posthoc_ema": facts})
    )


def _write(
    target: RunDirectory, run: Run, step: int, weights: Mapping[str, Tensor], overwrite: bool, facts: Mapping[str, Any]
) -> None:
    """Write a run with other averaged weights, and with all that the model and its data need."""
    files, task, before = RunDirectory(run.directory), run.recipe, run.manifest.entries
    recipe = task.to_yaml()
    size = sum(value.numel() * value.element_size() for value in weights.values())
    kept = {name: read_bytes(files.path / name) for name in run.manifest.kept}
    entries: dict[str, Any] = {name: before[name] for name in _FACTS if name in before}
    entries |= {"status": SAVED, "finished": now(), "recipe_yaml": recipe, "posthoc_ema": facts, **environment()}
    with (
        target.written(target.check(False, overwrite, size + 1_000_000), main=True),
        files.measured(getattr(task, "measures", False)) as measured,
    ):
        target.create(recipe, measured, kept, entries)
        extra = {"seconds": 0.0, "loss_sum": 0.0}
        checkpoints = Checkpoints(target.checkpoints, may_write=target.check_present)
        checkpoints.save(Checkpoint(step, {}, weights, {}, extra))
