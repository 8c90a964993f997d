"""What a recipe asks for: the interface of every kind, how one is read, and a trained model read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import RecipeError, RunError
from unidiff.recipe.build import Builder
from unidiff.recipe.parameters import parameters
from unidiff.recipe.place import Node
from unidiff.recipe.read import read_record
from unidiff.recipe.record import Record
from unidiff.recipe.registry import PUBLIC
from unidiff.run.directory import RunDirectory
from unidiff.run.records import Manifest, Outcome
from unidiff.solver.sample import Sampling, Solution
from unidiff.training.trainable import Trainable

__all__ = ["Options", "Reporter", "Run", "Task", "load_recipe", "resumed_recipe"]


class Reporter(Protocol):
    """Receives the progress and the notices of a task."""

    def notice(self, text: str) -> None:
        """Show a sentence that the user must see."""

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """How far a stage ("train", "sample") is."""


class Options(TypedDict, total=False):
    """How a task is run.

    Attributes:
        device: auto (the default), cpu, cuda, cuda:1 or mps.
        resume: Continue the run in the directory.
        overwrite: Replace the results in the directory.
        dry_run: Check everything, write nothing.
        stop: Called after every training step; True ends the run with a checkpoint and Interrupted.
        allow_imports: Accept classes from outside unidiff in the recipes that this one names.
    """

    device: str
    resume: bool
    overwrite: bool
    dry_run: bool
    stop: Callable[[], bool]
    allow_imports: bool


class Task(Record, ABC):
    """What a recipe asks for: a frozen dataclass whose fields are the top-level keys.

    Attributes:
        key: The top-level key by which a recipe is known to be of this kind. Empty for a kind from outside unidiff,
            whose recipes name it: `type: module:Class`.
        noun: What it is, in a few words, for messages: "the training of a classifier".
    """

    key: ClassVar[str] = ""
    noun: ClassVar[str] = "a task"

    @abstractmethod
    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> Outcome | None:
        """Do it, and write all that comes of it into a directory.

        Args:
            directory: The directory; it need not exist yet.
            reporter: Receives progress and notices.
            **options: See `Options`.

        Returns:
            What was done; None on all but the first of several processes.

        Raises:
            UnidiffError: If something does not fit; nothing has been written then.
        """

    def facts(self) -> dict[str, Any]:
        """What `unidiff check --json` prints beside the recipe."""
        return {}

    def verdict(self) -> str:
        """What `unidiff check` prints after a valid recipe."""
        return f"Valid. Nothing is trained: this is {self.noun}."

    def resumed(self, directory: Path, *, allow_imports: bool = False) -> Task:
        """The task that a run was started with, provided that it is this one; `run(resume=True)` goes on with it.

        Raises:
            RunError: If there is no run to resume, or it was started with another recipe.
        """
        raise RunError("--resume: this recipe does not train a model. Leave it out.")

    def load(
        self,
        directory: Path,
        *,
        device: str = "auto",
        report: Callable[[str], None],
    ) -> Run:
        """The model that this recipe has trained into a directory.

        Raises:
            RunError: If it trains none, or the directory holds none that is whole.
        """
        raise RunError(f"{directory}: this recipe is {self.noun}; it does not train a model.")

    def to_dict(self) -> dict[str, Any]:
        """Every parameter with its value; a kind from outside unidiff begins with its `type`."""
        return ({} if self.key else {"type": PUBLIC.name_of(type(self))}) | super().to_dict()


@dataclass(frozen=True)
class Run:
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

    @property
    def denoiser(self) -> NeuralDenoiser:
        """The model, of a run that samples can be drawn from."""
        raise RecipeError(f"{self.directory}: this run is {self.recipe.noun}; it does not generate samples.")

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
        """
        raise RecipeError(f"{self.directory}: this run is {self.recipe.noun}; it does not generate samples.")


def load_recipe(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Task:
    """Read a recipe of any kind and check all of it; no data is read and no weight is made.

    Args:
        source: A path, or the name of a shipped recipe such as "ncsn_digits".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML: "training.steps=20",
            "sampling.solver={type: DDIM, eta: 0}". Later ones win.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Returns:
        The task, of the class whose `key` is at the top of the recipe, or that its `type` names.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    return read_record(_chosen, source, overrides, Builder(PUBLIC, allow_imports))


def resumed_recipe(directory: Path, task: Task, *, allow_imports: bool = False) -> Task:
    """The task that a run was started with, provided that `task` is the same.

    Raises:
        RunError: If there is no run to resume, or it was started with another recipe.
    """
    files = RunDirectory(directory)
    if not files.exists():
        raise RunError(f"{directory}: no run to resume. Leave out --resume to start one.")
    saved = load_recipe(files.recipe, allow_imports=allow_imports)
    if changed := _differences(saved.to_dict(), task.to_dict()):
        raise RunError(
            f"{directory}: this run was started with another recipe: {'; '.join(changed)}. "
            f"Resume it with its own (`unidiff run {files.recipe} --resume`), or start another with --out."
        )
    return saved


def _differences(saved: object, given: object, path: str = "") -> list[str]:
    if isinstance(saved, dict) and isinstance(given, dict):
        keys = [*saved, *(key for key in given if key not in saved)]
        return [
            line
            for key in keys
            for line in _differences(saved.get(key), given.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if saved == given else [f"{path} was {saved!r}, is {given!r}"]


def _chosen(builder: Builder, node: Node) -> tuple[type[Task], Node]:
    """The kind of a recipe, and the recipe without its `type`."""
    written = node.value if isinstance(node.value, dict) else {}
    if "type" in written:
        rest = {name: child for name, child in written.items() if name != "type"}
        return builder.named(Task, written["type"], "type"), Node(rest, node.place, node.key)  # type: ignore[type-abstract]
    kinds = _public_kinds()
    marked = [kind for kind in kinds if kind.key in written]
    # Without such a key: the kind that shares most keys with the recipe, and of several the one that needs no mark.
    nearest = max(kinds, key=lambda kind: (len(parameters(kind).keys() & written.keys()), not kind.key))
    return (marked or [nearest])[0], node


def _public_kinds() -> list[type[Task]]:
    return [kind for kind in PUBLIC.choices(Task).values() if kind.__module__.startswith("unidiff.tasks.")]
