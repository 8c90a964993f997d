"""Checkpoints that survive a kill at any moment: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unidiff.errors import RunError, RunFailed, require

__all__ = ["Checkpoint", "Checkpoints"]

_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on exactly: optimiser steps done, weights, averaged weights, optimiser state.

    Attributes:
        step: Optimiser steps done.
        model: Weights in training, by name.
        ema: Averaged weights, by name.
        optimizer: State of the optimiser.
        extra: Anything else, as JSON values.
    """

    step: int
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    extra: dict[str, Any]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Make a file or folder durable before a rename makes it visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)


class Checkpoints:
    """The checkpoints of one run: a folder with a subfolder per kept step.

    Args:
        folder: The `checkpoints` folder of a run directory; made when first written to.
        keep: Newest checkpoints kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        require(keep >= 1, "keep", keep, "an integer >= 1")
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """Folders of the checkpoints, newest first."""
        return sorted((path for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint; then drop older ones beyond `keep`, and later ones, which a resumed run had to pass over.

        Raises:
            RunFailed: If it cannot be written; older checkpoints stay.
        """
        final = self.folder / f"step-{checkpoint.step:08d}"
        partial = self.folder / f".partial-{checkpoint.step:08d}"
        self._clean()
        try:
            partial.mkdir(parents=True)
            _save_weights(checkpoint.model, partial / "model.safetensors")
            _save_weights(checkpoint.ema, partial / "ema.safetensors")
            torch.save(checkpoint.optimizer, partial / "optimizer.pt")
            files = {path.name: _digest(path) for path in sorted(partial.iterdir())}
            state = {"step": checkpoint.step, "files": files, "extra": checkpoint.extra}
            (partial / _STATE).write_text(json.dumps(state, indent=2) + "\n")
            for path in [*partial.iterdir(), partial]:
                _sync(path)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            _sync(self.folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each of them, by who noticed it
            self._clean()
            remedy = "Free space or mend the permissions, then go on with --resume."
            raise RunFailed(f"{final}: the checkpoint could not be written ({error}). {remedy}") from error
        kept = [path for path in self.paths() if path.name <= final.name][: self.keep]
        for other in self.paths():
            if other not in kept:
                shutil.rmtree(other, ignore_errors=True)
        return final

    def _clean(self) -> None:
        """Drop what a killed process left half-written."""
        for partial in self.folder.glob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)

    def load(self, report: Callable[[str], None], device: torch.device | str = "cpu") -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there is none at all.

        Args:
            report: Told, in a sentence, of every damaged checkpoint that was passed over.
            device: Where the weights are loaded to.

        Raises:
            RunError: If there are checkpoints, but every one is damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return self._read(path, device)
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
                report(f"{path} is damaged and was passed over ({error}).")
        if paths:
            raise RunError(f"{self.folder}: every checkpoint is damaged. Train again with --overwrite.")
        return None

    def _read(self, path: Path, device: torch.device | str) -> Checkpoint:
        state = json.loads((path / _STATE).read_text())
        for name, digest in state["files"].items():
            if _digest(path / name) != digest:
                raise ValueError(f"{name} has changed since it was written")
        return Checkpoint(
            step=state["step"],
            model=load_file(path / "model.safetensors", device=str(device)),
            ema=load_file(path / "ema.safetensors", device=str(device)),
            optimizer=torch.load(path / "optimizer.pt", map_location=device, weights_only=True),
            extra=state["extra"],
        )
