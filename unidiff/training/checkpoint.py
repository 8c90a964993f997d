"""Checkpoints that survive a kill at any moment: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unidiff.errors import RunError, RunFailed, is_whole, require_whole
from unidiff.files import PARTIAL, digest, remove, whole_folder
from unidiff.memory import enough_memory
from unidiff.reading import Unreadable, read_json, read_saved
from unidiff.training.tied import load_tied, without_ties

__all__ = ["Checkpoint", "Checkpoints", "diverged"]

_STATE = "state.json"
_OPTIONAL = ("objective", "averages")  # files of tensors that not every training has
_FOLDER = re.compile("step-([0-9]{8,})")
_AVERAGE = "ema.safetensors"
_FILES = frozenset({"model.safetensors", _AVERAGE, "optimizer.pt"})


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to continue exactly.

    Attributes:
        step: Optimiser steps done.
        model: Weights in training, by name.
        ema: Averaged weights, by name.
        optimizer: State of the optimiser.
        extra: Anything else, as JSON values.
        objective: State of the objective, by name; empty for one that has none.
        averages: State of the averages of `Training.posthoc_every`, by name; empty without them.
    """

    step: int
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    extra: dict[str, Any]
    objective: Mapping[str, Tensor] = field(default_factory=dict)
    averages: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: a folder with a subfolder per kept step.

    Args:
        folder: The `checkpoints` folder of a run directory; made when first written to.
        keep: Newest checkpoints kept, at least 1.
        may_write: Called before a checkpoint is written; raises an error if it must not be.
    """

    folder: Path
    keep: int = 2
    may_write: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        require_whole("keep", self.keep)

    @property
    def averages(self) -> Path:
        """The folder of the averages that `Training.posthoc_every` keeps; none of them is ever dropped."""
        return self.folder / "averages"

    def paths(self) -> list[Path]:
        """Folders of the checkpoints, newest first; links, and copies under names of their own, are not among them."""
        folders = (path for path in self.folder.glob("step-*") if path.is_dir() and not path.is_symlink())
        return sorted((path for path in folders if _FOLDER.fullmatch(path.name)), key=_step, reverse=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint; then drop older ones beyond `keep`, and later ones, which a resumed run skipped.

        Raises:
            RunFailed: If it cannot be written; older checkpoints stay.
        """
        self.may_write()
        final = self.folder / f"step-{checkpoint.step:08d}"
        try:
            for partial in self.folder.glob(f"{PARTIAL}*"):  # of a killed process: no other writes here
                remove(partial)
            if final.is_symlink() or not final.is_dir():
                remove(final)  # the folder that a link leads to is not replaced
            with whole_folder(final) as partial:
                for name in ("model", "ema", *(name for name in _OPTIONAL if getattr(checkpoint, name))):
                    tensors, ties = without_ties(getattr(checkpoint, name))
                    save_file(tensors, partial / f"{name}.safetensors", ties or None)
                torch.save(checkpoint.optimizer, partial / "optimizer.pt")
                files = {path.name: digest(path).removeprefix("sha256:") for path in sorted(partial.iterdir())}
                state = {"step": checkpoint.step, "files": files, "extra": checkpoint.extra}
                (partial / _STATE).write_text(json.dumps(state, indent=2) + "\n")
        except (OSError, RuntimeError) as error:  # a full disk may be either
            remedy = "Free space or correct the permissions, then continue with --resume."
            raise RunFailed(f"{final}: the checkpoint could not be written ({error}). {remedy}") from error
        newest = [path for path in self.paths() if _step(path) <= checkpoint.step][: self.keep]
        for other in set(self.paths()) - set(newest):
            with suppress(OSError):
                remove(other)
        return final

    def load(
        self,
        report: Callable[[str], None],
        device: torch.device | str = "cpu",
        *,
        to_train: bool = True,
        restore: Callable[[Checkpoint], None] = lambda checkpoint: None,
    ) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there are no checkpoints.

        Args:
            report: Receives a sentence for each damaged checkpoint that was skipped.
            device: Where the weights are loaded to.
            to_train: False reads the averaged weights only; the weights in training and the optimiser are left empty.
            restore: Called with the checkpoint; what it rejects, with an error, is damaged.

        Raises:
            RunError: If there are checkpoints, but every one is damaged.
        """
        tried: list[Path] = []
        # Looked for again each time: a run that goes on has perhaps replaced the one that was being read.
        while path := next((path for path in self.paths() if path not in tried), None):
            tried.append(path)
            try:
                with enough_memory():
                    checkpoint = self._read(path, device, to_train)
                    restore(checkpoint)
                return checkpoint
            except Unreadable as error:
                problem = f"{error.path.name}: {error.problem}"
            except KeyError as error:
                problem = f"{error} is missing"
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
                problem = str(error)
            if path.is_dir():
                report(f"{path} is damaged and was skipped ({problem}).")
        if tried:
            raise RunError(f"{self.folder}: every checkpoint is damaged. Restore one, or train again with --overwrite.")
        return None

    def _read(self, path: Path, device: torch.device | str, to_train: bool) -> Checkpoint:
        state = read_json(path / _STATE)
        needed = _FILES if to_train else {_AVERAGE}  # a shipped model has no more
        if not needed <= state["files"].keys() <= {*_FILES, *(f"{name}.safetensors" for name in _OPTIONAL)}:
            raise ValueError(f"{_STATE} names other files than those of a checkpoint: {', '.join(state['files'])}")
        if not (is_whole(state["step"], 0) and path.name == f"step-{state['step']:08d}"):
            raise ValueError(f"{_STATE} is of step {state['step']}")
        for name, expected in state["files"].items():
            if digest(path / name) != f"sha256:{expected}":
                raise ValueError(f"{name} has changed since it was written")
        if to_train:
            _require_counts(state["extra"])
        there = [name for name in _OPTIONAL if to_train and f"{name}.safetensors" in state["files"]]
        return Checkpoint(
            step=state["step"],
            model=load_tied(path / "model.safetensors", device) if to_train else {},
            ema=load_tied(path / _AVERAGE, device),
            optimizer=read_saved(path / "optimizer.pt", device) if to_train else {},
            extra=state["extra"],
            **{name: load_tied(path / f"{name}.safetensors", device) for name in there},
        )


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _require_counts(extra: Mapping[str, Any]) -> None:
    """Raise a ValueError unless what a training counts is of the right form, where it is there."""
    for name in ("seconds", "loss_sum", "first_loss"):
        value = extra.get(name, 0.0)
        limits = {"seconds": 0 <= value < 1e12, "loss_sum": abs(value) < math.inf}
        if type(value) not in (int, float) or not limits.get(name, True):
            raise ValueError(f"{_STATE} has {name}: {value!r:.40}")
    for name in ("summed", "seen"):
        if not is_whole(value := extra.get(name, 0), 0, 2**53):
            raise ValueError(f"{_STATE} has {name}: {value!r:.40}")


def diverged(step: int, problem: str, checkpoints: Checkpoints | None) -> str:
    """What is said of a training whose numbers went out of bounds, and what is left of it."""
    saved = checkpoints.paths() if checkpoints is not None else []
    noun = "last good checkpoint" if "finite" in problem else "last checkpoint, perhaps as bad,"
    good = f"The {noun} is {saved[0]}." if saved else "No checkpoint had been saved."
    remedy = "Try a smaller lr, a longer warmup, a smaller clip or precision: fp32."
    return f"Training stopped at step {step}: {problem}. {good} {remedy}"
