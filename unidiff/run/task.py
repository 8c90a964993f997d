"""Tasks: what recipes describe, and how a recipe is read."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict

from typing_extensions import Self, Unpack

from unidiff.arguments import plain_arguments
from unidiff.errors import RunError
from unidiff.recipe.blueprint import parameters
from unidiff.recipe.build import Builder
from unidiff.recipe.node import Node
from unidiff.recipe.read import read_recipe
from unidiff.recipe.registry import PUBLIC
from unidiff.recipe.save import Record
from unidiff.run.records import Outcome

if TYPE_CHECKING:
    import torch

    from unidiff.run.load import Run

__all__ = ["Options", "Reporter", "Task", "differences", "load_recipe", "recipe_as_it_was", "shipped_tasks"]


class Reporter(Protocol):
    """Receives the progress and the notices of a task."""

    def notice(self, text: str) -> None:
        """Show a sentence that the user must see."""

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """How far a stage ("train", "sample", "compare") is."""


class Options(TypedDict, total=False):
    """How a task is run.

    Attributes:
        device: auto (the default), cpu, cuda, cuda:1 or mps.
        resume: Continue the run in the directory.
        extend: With `resume`: continue it with other numbers or data than it was started with.
        overwrite: Replace the results in the directory.
        dry_run: Check everything, write nothing.
        stop: Called after every training step; True ends the run with a checkpoint and Interrupted.
        allow_imports: Accept classes from outside unidiff in the recipes that this one names.
    """

    device: str
    resume: bool
    extend: bool
    overwrite: bool
    dry_run: bool
    stop: Callable[[], bool]
    allow_imports: bool


class Task(Record, ABC):
    """What a recipe describes: a frozen dataclass whose fields are the top-level keys.

    Attributes:
        key: The top-level key that identifies a recipe of this task. Empty for a task from outside unidiff, whose
            recipes name it: `type: module:Class`.
        noun: What it is, in a few words, for messages: "the training of a classifier".
        filled_in: A key from which others can be filled in, and those others, which a recipe with it may leave out.
        filled_with: Of these others, those that are filled in key by key, and the component that they are then: beside
            the key a recipe may change its parameters without a `type`.
    """

    key: ClassVar[str] = ""
    noun: ClassVar[str] = "a task"
    filled_in: ClassVar[tuple[str, tuple[str, ...]]] = ("", ())
    filled_with: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.noun}>"

    def _repr_html_(self) -> str:
        """The recipe, for notebooks."""
        return f"<pre>{escape(self.to_yaml())}</pre>"

    @abstractmethod
    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> Outcome | None:
        """Do it, and write all results into a directory.

        Args:
            directory: The directory; it need not exist yet.
            reporter: Receives progress and notices.
            **options: See `Options`.

        Returns:
            What was done; None on all but the first of several processes.

        Raises:
            UnidiffError: If something does not fit; nothing has been written then.
        """

    @property
    def builds_on(self) -> tuple[Path, ...]:
        """Directories that the recipe names and that must be there when it is run: of training, start and teacher."""
        return tuple(Path(path) for name in ("start", "teacher") if isinstance(path := getattr(self, name, None), str))

    def check_named(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
        """Read what the recipe names, such as runs and data, and check that it fits; nothing by default.

        Raises:
            UnidiffError: If something is missing or does not fit, as from `run`.
        """
        return

    def facts(self) -> dict[str, Any]:
        """What `unidiff check --json` prints beside the recipe."""
        return {}

    def verdict(self) -> str:
        """What `unidiff check` prints after a valid recipe."""
        return f"Valid. Nothing is trained: this is {self.noun}."

    def resumed(self, directory: Path, *, allow_imports: bool = False, extend: bool = False) -> Task:
        """The task that `run(resume=True)` continues a run with: its own if it equals this one, else this one.

        Raises:
            RunError: If there is no run to resume, or it was started with another recipe and is not to be extended.
        """
        raise RunError("--resume: this recipe does not train a model. Leave it out.")

    def drawn_with(self, solver: str | None, steps: int | None) -> Self:
        """The task whose samples are drawn with another solver, as for `SolverSpec.of`, or number of steps.

        Raises:
            RunError: If the task does not train a model that draws samples.
            ParameterError: If the text names none, or it is not defined on the process.
        """
        problem = f"this recipe is {self.noun}, and only a model that is trained draws samples with one solver"
        raise RunError(f"{'--steps' if solver is None else '--solver'}: {problem}. Leave it out.")

    def load(self, directory: Path, *, device: str, report: Callable[[str], None]) -> Run:
        """The run of this recipe in a directory; see `unidiff.load`."""
        raise RunError(f"{directory}: this recipe is {self.noun}; it does not train a model.")

    def to_dict(self) -> dict[str, Any]:
        """Every parameter with its value; after its `type` for a task from outside unidiff."""
        return ({} if self.key else {"type": PUBLIC.name_of(type(self))}) | super().to_dict()


@plain_arguments
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
    return read_recipe(Task, source, overrides, choose=_chosen, allow_imports=allow_imports)  # type: ignore[type-abstract]


def recipe_as_it_was(source: Path, text: str, allow_imports: bool, overrides: Sequence[str] = ()) -> Task:
    """As `load_recipe`, from the text that was in a file."""
    return read_recipe(Task, source, overrides, choose=_chosen, allow_imports=allow_imports, text=text)  # type: ignore[type-abstract]


def differences(saved: object, new: object, path: str = "") -> list[str]:
    """The values that differ between two nested dictionaries, in words."""
    if isinstance(saved, dict) and isinstance(new, dict):
        below = f"{path}." if path else ""
        changes = (differences(saved.get(key), new.get(key), f"{below}{key}") for key in saved | new)
        return [*chain.from_iterable(changes)]
    return [] if saved == new else [f"{path} was {saved!r}, is {new!r}"]


# By name, as a `type` of a recipe is found: what a folder of diffusers determines is known above this package.
_START, _NETWORK = "unidiff.interop.diffusers.start", "backbone"


@cache
def shipped_tasks() -> list[type[Task]]:
    """The tasks that come with unidiff."""
    return [task for task in PUBLIC.choices(Task).values() if task.__module__.startswith("unidiff.tasks.")]


def _chosen(builder: Builder, node: Node) -> tuple[type[Task], Node]:
    """The class of a recipe's task, and the recipe without its `type`."""
    written = node.value if isinstance(node.value, dict) else {}
    if "type" in written:
        rest = {name: child for name, child in written.items() if name != "type"}
        return builder.named(Task, written["type"], "type"), Node(rest, node.location, node.key)  # type: ignore[type-abstract]
    tasks = shipped_tasks()
    network = written[_NETWORK].children() if _NETWORK in written else {}
    others = any(task.key in written for task in tasks if task.key != _NETWORK)
    if "start" in written and "type" not in network and not others:
        node = importlib.import_module(_START).completed(node)
        written = node.children()
    marked = [task for task in tasks if task.key in written]
    # Without such a key: the task that shares most keys with the recipe, and of several the one that needs no key.
    nearest = max(tasks, key=lambda task: (len(parameters(task).keys() & written.keys()), not task.key))
    return (marked or [nearest])[0], node
