"""The files of a run directory, and the right to write them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unidiff._version import __version__
from unidiff.errors import RunError
from unidiff.run.records import Manifest

__all__ = ["RunDirectory", "environment"]

_RECIPE, _MANIFEST, _METRICS = "recipe.yaml", "manifest.json", "metrics.jsonl"
_CHECKPOINTS, _SAMPLES, _EVENTS, _LOSS = "checkpoints", "samples", "tensorboard", "loss.png"
_MEASURED, _CODEC = "process.safetensors", "codec"


class RunDirectory:
    """Where the files of one run are.

    Args:
        path: The directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The run's name in captions: that of the directory."""
        return self.path.absolute().name

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / _RECIPE

    @property
    def checkpoints(self) -> Path:
        """The checkpoints' folder."""
        return self.path / _CHECKPOINTS

    @property
    def samples(self) -> Path:
        """The pictures' folder."""
        return self.path / _SAMPLES

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.path / _EVENTS

    @property
    def loss_curve(self) -> Path:
        """The picture of the loss."""
        return self.path / _LOSS

    def exists(self) -> bool:
        """Whether this is a run directory: a recipe.yaml alone may be anybody's."""
        return self.recipe.is_file() and ((self.path / _MANIFEST).is_file() or self.checkpoints.is_dir())

    def check_new(self, overwrite: bool, needed: int) -> None:
        """Refuse a directory that a new run must not or cannot use; nothing is changed.

        Args:
            overwrite: An older run may be replaced.
            needed: Bytes that the run will write, about.

        Raises:
            RunError: If the place is taken, not writable, or too small.
        """
        self.check_writable(needed)
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        if not self.exists():
            raise RunError(f"{self.path}: the directory holds files that are no run. Choose another place with --out.")
        if not overwrite:
            raise RunError(
                f"{self.path}: a run is already there. Go on with it by --resume, replace it by --overwrite, "
                "or choose another place with --out."
            )

    def check_writable(self, needed: int) -> None:
        """Refuse a place that cannot be written or has too little space, before anything is done.

        Raises:
            RunError: With the reason.
        """
        elsewhere = "Choose another place with --out."
        try:
            there = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
            if not there.is_dir():
                raise RunError(f"{self.path}: {there} is a file, so no directory can be made there. {elsewhere}")
            if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
                raise RunError(f"{self.path}: there is no permission to write in {there}. {elsewhere}")
            free = shutil.disk_usage(there).free
        except OSError as error:
            raise RunError(f"{self.path}: this place cannot be used ({error.strerror}). {elsewhere}") from error
        if free < needed:
            raise RunError(
                f"{self.path}: the run needs about {needed / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free there."
                f" Free some space. {elsewhere}"
            )

    def create(self, recipe: str, measured: Mapping[str, Tensor], kept: Mapping[str, bytes]) -> None:
        """Make the directory: the recipe, what the process measured of the data, and the files that the data need.

        The manifest gets the digests of the latter, see `check_kept`.
        An older run in it is removed, and nothing but the run.

        Raises:
            RunError: If it cannot be made.
        """
        try:
            if self.exists():
                for name in (_METRICS, _LOSS, _SAMPLES, _EVENTS, _CHECKPOINTS, _MEASURED, _CODEC, _MANIFEST, _RECIPE):
                    _remove(self.path / name)
            for folder in (self.samples, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            if measured:  # before the recipe, which makes this a run
                tensors = {name: tensor.contiguous() for name, tensor in measured.items()}
                _write(self.path / _MEASURED, save(tensors))
            for name, content in kept.items():
                (self.path / name).parent.mkdir(exist_ok=True)
                _write(self.path / name, content)
            if kept:
                self.update_manifest(kept={name: _digest(content) for name, content in kept.items()})
            _write(self.recipe, recipe.encode())
        except OSError as error:
            raise RunError(
                f"{self.path}: the directory cannot be made ({error.strerror}). Choose another --out."
            ) from error

    def check_kept(self) -> None:
        """Refuse a run whose data's files, such as its codec, are not those that it was made with.

        Raises:
            RunError: If one is missing or has changed.
        """
        for name, expected in self.read_manifest().kept.items():
            path = self.path / name
            if not path.is_file() or _digest(path.read_bytes()) != expected:
                problem = f"this file is missing, or not the one that the run was made with ({expected})"
                raise RunError(f"{path}: {problem}. The model means nothing with another: bring it back.")

    @contextmanager
    def measured(self) -> Iterator[dict[str, Tensor]]:
        """What was measured of the data when the run began, to build a model with.

        Raises:
            RunError: If that is missing or damaged.
        """
        path = self.path / _MEASURED
        remedy = "The model means nothing without it: bring the file back, or train again with --overwrite."
        try:
            yield load_file(path)
        except FileNotFoundError as error:
            raise RunError(f"{path}: what the process measured of the data is missing. {remedy}") from error
        except (OSError, ValueError, SafetensorError) as error:  # a ParameterError is a ValueError
            raise RunError(f"{path}: the file is damaged ({error}). {remedy}") from error

    def read_manifest(self) -> Manifest:
        """The manifest; empty if there is none yet.

        Raises:
            RunError: If it is damaged.
        """
        path = self.path / _MANIFEST
        try:
            return Manifest.read(path.read_text()) if path.is_file() else Manifest()
        except ValueError as error:
            raise RunError(f"{path}: the file is damaged ({error}). Remove it: the run works without it.") from error

    def update_manifest(self, **values: Any) -> None:
        """Set entries of the manifest."""
        _write(self.path / _MANIFEST, json.dumps({**self.read_manifest().entries, **values}, indent=2).encode() + b"\n")

    def append_metrics(self, line: Mapping[str, float | int | None]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / _METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        path = self.path / _METRICS
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def cut_metrics(self, step: int) -> None:
        """Drop lines after `step`: the resumed run will write them again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        _write(self.path / _METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())


def environment() -> dict[str, Any]:
    """What a result may depend on beside the recipe: versions, git commit, machine."""
    libraries = ["torch", "numpy", "accelerate", "safetensors", "einops", "pydantic", "scikit-learn", "pillow"]
    return {
        "unidiff": __version__,
        "git": _git_commit(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in libraries},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    """Commit of the checkout that unidiff is run from, "-dirty" if changed; None for an installed package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
