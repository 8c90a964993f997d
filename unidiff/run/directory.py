"""The files of a run directory, and the right to write them."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from unidiff._version import __version__
from unidiff.errors import RunError, is_whole
from unidiff.files import digest, require_writable, whole_file
from unidiff.reading import Unreadable, read_bytes, read_json, read_tensors
from unidiff.run.records import DataFacts, Manifest

__all__ = ["RunDirectory", "check_output", "environment"]

_REMEDY = "Choose another directory with --out."


class RunDirectory:
    """The files of one run.

    Args:
        path: The directory; it need not exist yet.

    Raises:
        RunError: If its name is not UTF-8.

    Attributes:
        name: The run's name in captions: that of the directory.
        recipe: The resolved recipe; as `loss_curve` and `start` (the weights that
            training began with), a file. `checkpoints`, `samples` and `tensorboard` are folders.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            str(path).encode()
        except UnicodeEncodeError:  # safetensors and TensorBoard open no file of such a name
            remedy = "Rename it, or set PYTHONUTF8=1 if the terminal's letters are UTF-8."
            raise RunError(f"{path}: the name of a run directory must be UTF-8. {remedy}") from None
        self.name = path.absolute().name
        self.recipe, self.loss_curve = path / "recipe.yaml", path / "loss.png"
        self.checkpoints, self.samples, self.tensorboard = path / "checkpoints", path / "samples", path / "tensorboard"
        self._manifest, self._metrics = path / "manifest.json", path / "metrics.jsonl"
        self._measured, self.start = path / "process.safetensors", path / "start.safetensors"
        self._codec = path / "codec"

    def exists(self) -> bool:
        """Whether this is a run directory: a recipe.yaml alone may be anybody's."""
        # Unlike Path.is_file, these are False of a name that the file system cannot hold.
        return os.path.isfile(self.recipe) and (os.path.isfile(self._manifest) or os.path.isdir(self.checkpoints))

    def create(self, recipe: str, measured: Mapping[str, Tensor], kept: Mapping[str, bytes]) -> None:
        """Make the directory: the recipe, what was measured of the data, and the files that the data need.

        The manifest gets the digests of the latter, see `check_kept`. All files of an older run are removed, and no
        others.

        Raises:
            RunError: If it cannot be made.
        """
        try:
            if self.exists():
                of_a_run = (self._metrics, self.loss_curve, self.samples, self.tensorboard, self.checkpoints)
                for path in (*of_a_run, self._measured, self._codec, self.start, self._manifest, self.recipe):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            for folder in (self.samples, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            if measured:  # before the recipe, which makes this a run
                _write(self._measured, save({name: tensor.contiguous() for name, tensor in measured.items()}))
            for name, content in kept.items():
                (self.path / name).parent.mkdir(exist_ok=True)
                _write(self.path / name, content)
            if kept:
                self.update_manifest(kept={name: digest(self.path / name) for name in kept})
            _write(self.recipe, recipe.encode())
        except OSError as error:
            raise RunError(f"{self.path}: the directory cannot be created ({error.strerror}). {_REMEDY}") from error

    def check_kept(self) -> None:
        """Check that the files that the data need are those of the training.

        Raises:
            RunError: If one is missing or has changed.
        """
        for name, expected in self.read_manifest().kept.items():
            path = self.path / name
            inside = not Path(name).is_absolute() and ".." not in Path(name).parts
            if not (inside and os.path.isfile(path)) or digest(path) != expected:
                problem = f"the file is missing or has changed since training ({expected})"
                raise RunError(f"{path}: {problem}. The model needs the original file: restore it.")

    def check_data(self, data: DataFacts) -> None:
        """Raise a RunError for other data than the run began with: a stand-in, say, in place of the real data."""
        before = self.read_manifest().data or data
        if before.checksum != data.checksum:
            raise RunError(
                f"{self.path}: this run was trained on {before.name} ({before.checksum}), but the data are now "
                f"{data.name} ({data.checksum}). Restore the data, or start another run with --out."
            )

    @contextmanager
    def measured(self) -> Iterator[dict[str, Tensor]]:
        """What was measured of the data when the run began, to build a model with.

        Raises:
            RunError: If that is missing or damaged.
        """
        remedy = "The model is unusable without it: restore the file, or train again with --overwrite."
        try:
            yield read_tensors(self._measured)
        except Unreadable as error:
            problem = "what was measured of the data is missing" if error.missing else error.problem
            raise RunError(f"{self._measured}: {problem}. {remedy}") from error
        except (ValueError, RuntimeError, TypeError, LookupError) as error:  # a ParameterError is a ValueError
            raise RunError(f"{self._measured}: the file is damaged ({error}). {remedy}") from error

    def read_manifest(self) -> Manifest:
        """The manifest; empty if there is none yet.

        Raises:
            RunError: If it is damaged.
        """
        remedy = "Remove it: the run works without it."
        try:
            entries = read_json(self._manifest)
            return TypeAdapter(Manifest).validate_python({**entries, "entries": entries})
        except Unreadable as error:
            if error.missing:
                return Manifest()
            raise RunError(f"{self._manifest}: {error.problem}. {remedy}") from error
        except ValidationError as error:
            problem = ": ".join([*map(str, error.errors()[0]["loc"]), error.errors()[0]["msg"]])
            raise RunError(f"{self._manifest}: the file is damaged ({problem}). {remedy}") from error

    def update_manifest(self, **values: object) -> None:
        """Set entries of the manifest."""
        _write(self._manifest, json.dumps({**self.read_manifest().entries, **values}, indent=2).encode() + b"\n")

    def append_metrics(self, line: Mapping[str, float | int | None]) -> None:
        """Add a line to metrics.jsonl."""
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl; a warning tells of others that are damaged.

        Raises:
            RunError: If the file cannot be read.
        """
        try:
            *lines, _ = [*read_bytes(self._metrics).split(b"\n")]  # the last, if any, was cut by a kill
        except Unreadable as error:
            if error.missing:
                return []
            raise RunError(f"{self._metrics}: {error.problem}. Remove it: the run works without it.") from error
        whole = [values for line in lines if (values := _metrics_of(line)) is not None]
        if damaged := len(lines) - len(whole):
            warnings.warn(f"{self._metrics}: {damaged} damaged lines of {len(lines)} are left out.", stacklevel=2)
        return whole

    def cut_metrics(self, step: int) -> None:
        """Drop lines after `step`: the resumed run will write them again."""
        lines = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        _write(self._metrics, "".join(lines).encode())


def _metrics_of(line: bytes) -> dict[str, Any] | None:
    """What a line of metrics.jsonl says, numbers by name; None if it is damaged."""
    with suppress(ValueError, RecursionError):
        values = json.loads(line)
        if isinstance(values, dict) and is_whole(values.get("step"), 0):
            numbers = (values.get(name) for name in ("loss", "seconds"))
            return values if all(type(number) in (int, float) for number in numbers) else None
    return None


def check_output(
    directory: Path, noun: str, exists: bool, overwrite: bool, needed: int, remedy: str = "Replace"
) -> None:
    """Check that results can be written into a directory; nothing is changed.

    Args:
        directory: The directory; it need not exist yet.
        noun: What the results are, in a word: "comparison".
        exists: Results of this type are there.
        overwrite: They may be replaced.
        needed: Bytes that will be written, about.
        remedy: How the remedy begins if results are there.

    Raises:
        RunError: If the directory is in use, not writable, or too small.
    """
    require_writable(directory, needed=needed, remedy=_REMEDY)
    article = "an" if noun[0] in "aeiou" else "a"
    if exists and not overwrite:
        choices = f"{remedy} it with --overwrite, or choose another directory with --out."
        raise RunError(f"{directory}: {article} {noun} is already there. {choices}")
    if not exists and directory.is_dir() and any(directory.iterdir()):
        raise RunError(f"{directory}: the directory holds files that are not {article} {noun}. {_REMEDY}")


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
    model = re.search(r"^model name\s*:\s*(.+)", cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else "", re.M)
    return model[1] if model else platform.processor() or platform.machine()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
