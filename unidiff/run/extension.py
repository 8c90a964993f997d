"""Continuing a run with other numbers or other data: what may change, and what the manifest records of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unidiff.errors import ParameterError, RecipeError, RunError, is_whole
from unidiff.machine import now
from unidiff.recipe.shipped import read_source
from unidiff.run.directory import RunDirectory
from unidiff.run.records import DataFacts
from unidiff.run.task import Task, differences, load_recipe, recipe_as_it_was
from unidiff.text import count_of, first_line
from unidiff.training.checkpoint import Checkpoints

if TYPE_CHECKING:
    from unidiff.run.execute import TrainingTask

__all__ = ["DAMAGED", "SAVED", "changed_data", "changed_numbers", "record_extension", "require_own_recipe"]

SAVED = "saved"  # status of a model that was trained in code, or averaged later: there is no training to continue
DAMAGED = "damaged data"  # status of a run that met a sample it could not read: its data are then expected to change
_FREE = ("training", "sampling", "data", "smaller_recipe")  # keys of a recipe that do not define the model
_BEGINNING = ("objective", "seed", "start", "train", "teacher")  # that do not matter to a trained one


def changed_numbers(
    task: TrainingTask[Any],
    files: RunDirectory,
    extend: bool,
    report: Callable[[str], None],
    *,
    allow_imports: bool = False,
) -> list[str]:
    """How a task that is to continue a run differs from the one that it was started with, in words.

    More training steps, which change nothing that was done, are always accepted.

    Args:
        task: What is to continue the run.
        files: Its directory.
        extend: Whether other numbers are meant.
        report: Receives a sentence if the learning rate changes.
        allow_imports: Accept classes from outside unidiff in the recipe of the run.

    Raises:
        RunError: If there is no run, or it cannot be continued so.
    """
    directory = files.path
    files.require()
    if files.read_manifest().status == SAVED:
        problem = "this model was saved without the state of its training"
        raise RunError(f"{directory}: {problem}. `start: {directory}` in a recipe begins with its weights.")
    now_there, recorded, new_one = read_source(files.recipe)[1], files.read_manifest().recipe_yaml, task.to_yaml()
    began = now_there if recorded is None else recorded
    saved: Any = task if began == new_one else _recorded(files, began, allow_imports)
    _require_checkpoints(files, saved)
    if now_there == began == new_one:
        return []
    before, after = saved.to_dict(), task.to_dict()
    edited = differences(before, load_recipe(files.recipe, allow_imports=allow_imports).to_dict())
    changes = differences(before, after)
    if not (changes or edited):
        return []
    fixed = [key for key in before | after if key not in _FREE and before.get(key) != after.get(key)]
    own = f"Resume it with its own (`unidiff resume {directory}`)"
    another = f"{directory}: this run was started with another recipe: {'; '.join(changes)}"
    if edited:
        own = f"Undo that in {files.recipe}"
        another = f"{files.recipe}: the file has been edited since the run began: {'; '.join(edited)}"
        if not changes:
            raise RunError(f"{another}. {own}.")
    if fixed or saved.data.shape != task.data.shape:
        problem = f"{', '.join(fixed) or 'data.shape'} cannot change in a run"
        raise RunError(
            f"{another}. {own}, or start another with --out: {problem}. `start: {directory}` begins with its weights."
        )
    if (name := saved.data.replaced) and before["data"].get(name) != after["data"].get(name):
        raise RunError(f"{another}. {own}, or start another with --out: data.{name} cannot change in a run.")
    old, new = saved.training, task.training
    try:
        new.check_continues(old)
    except ParameterError as error:
        raise RunError(f"{another}. {own}, or start another with --out: training.{error}.") from error
    if not (extend or (len(changes) == 1 and new.steps > old.steps)):
        numbers = f"continue it with these numbers (`unidiff resume {directory} --extend --set KEY=VALUE`)"
        raise RunError(f"{another}. {own}, {numbers}, or start another with --out.")
    done = _steps_done(files)
    if new.steps < done:
        raise RunError(f"{directory}: training.steps must be >= {done}, the steps that are done, got {new.steps}")
    if new.steps > done and (rate := new.lr_at(done)) != old.lr_at(done):
        schedule = f"that of a run of {new.steps} steps with these numbers from the start"
        report(f"The learning rate is {rate:.3g} at step {done + 1}, instead of {old.lr_at(done):.3g}: {schedule}.")
    return changes


def require_own_recipe(files: RunDirectory, task: Task, *, allow_imports: bool = False) -> None:
    """Raise a RunError if a trained model is read with another process, network or prediction than it was trained with.

    Args:
        files: The directory of its run.
        task: What recipe.yaml is now, apart from its `sampling`.
        allow_imports: Accept classes from outside unidiff in the recipe that it was trained with.
    """
    recorded = files.read_manifest().recipe_yaml
    if recorded is None or recorded == read_source(files.recipe)[1]:
        return
    both = [each.to_dict() for each in (_recorded(files, recorded, allow_imports), task)]
    before, after = ({key: each[key] for key in each if key not in (*_FREE, *_BEGINNING)} for each in both)
    if edited := differences(before, after):
        problem = f"the file has been edited since the run began: {'; '.join(edited)}"
        raise RunError(f"{files.recipe}: {problem}. The weights are those of the recipe as it was: undo that.")


def _recorded(files: RunDirectory, text: str, allow_imports: bool) -> Any:
    """The recipe that the manifest has."""
    try:
        return recipe_as_it_was(files.recipe, text, allow_imports)
    except RecipeError as error:
        problem = f"`recipe_yaml` in manifest.json, the recipe of the run, cannot be used ({first_line(error)})"
        raise RunError(f"{files.path}: {problem}. Remove this entry: the run works without it.") from error


def changed_data(files: RunDirectory, data: DataFacts, extend: bool) -> list[str]:
    """How the data differ from those a run was trained on until now, in words.

    After a sample that could not be read, other data are expected: it was to be replaced or deleted.

    Raises:
        RunError: If they differ and that is not meant, or the model is not one of such data.
    """
    manifest = files.read_manifest()
    before = manifest.data or data
    if before.checksum == data.checksum:
        return []
    problem = (
        f"{files.path}: this run was trained on {before.name} ({before.checksum}), but the data are now "
        f"{data.name} ({data.checksum})"
    )
    old = (before.shape, before.stand_in, before.class_names or data.class_names)  # names are not in old manifests
    if old != (data.shape, data.stand_in, data.class_names):
        raise RunError(f"{problem}, of another kind. Restore the data, or start another run with --out.")
    if not (extend or (manifest.status == DAMAGED and before.name == data.name)):
        anyhow = f"continue with the data as they are (`unidiff resume {files.path} --extend`)"
        raise RunError(f"{problem}. Restore the data, {anyhow}, or start another run with --out.")
    counts = [f"{each.name}, {count_of(each.count, 'sample')} ({each.checksum})" for each in (before, data)]
    return [f"data were {counts[0]}, are {counts[1]}"]


def record_extension(files: RunDirectory, changes: list[str], recipe: str) -> None:
    """Set the recipe of a run, after an entry of the manifest: the changes, when, and after which step."""
    entry = {"step": _steps_done(files), "changes": changes, "time": now()}
    # Between the two files, recipe.yaml alone tells; `RunDirectory.reopen` records the new one.
    files.update_manifest(extensions=[*files.read_manifest().extensions, entry], recipe_yaml=None)
    files.replace_recipe(recipe)


def _steps_done(files: RunDirectory) -> int:
    newest = Checkpoints(files.checkpoints).load(lambda text: None, to_train=False)
    return 0 if newest is None else newest.step


def _require_checkpoints(files: RunDirectory, saved: TrainingTask[Any]) -> None:
    """Raise a RunError if a run has no checkpoint although it has saved some: it would start again at its first step.

    Metrics of a step are written before its checkpoint, and every checkpoint before the metrics of a later step.
    """
    if Checkpoints(files.checkpoints).paths():
        return
    manifest = files.read_manifest()
    step = max((line["step"] for line in files.read_metrics()), default=0)
    extended = any(is_whole(entry.get("step")) for entry in manifest.extensions)
    there = os.path.isdir(files.checkpoints)
    if there and not extended and manifest.status != "finished" and step <= saved.training.checkpoint_every:
        return  # it was killed before the first one
    problem = "the checkpoints of this run are gone: " + ("none is in it" if there else "there is no such folder")
    anew = f"start anew, from step 1, with `unidiff run {files.recipe} --out {files.path} --overwrite`"
    raise RunError(f"{files.checkpoints}: {problem}. Restore the folder, or {anew}.")
