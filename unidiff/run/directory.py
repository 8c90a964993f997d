"""The files of a run directory, and the right to write them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from unidiff.errors import RunError, RunFailed
from unidiff.files import NOFOLLOW, digest, is_inside, remove, remove_leftovers, whole_file
from unidiff.lock import Lock, check_free, locked
from unidiff.machine import now
from unidiff.reading import Unreadable, read_bytes, read_json, read_tensors
from unidiff.run.output import ANOTHER, check_output
from unidiff.run.records import METRICS_LIMIT, Manifest, manifest_of, metrics_of
from unidiff.run.shipped import locate

__all__ = ["RunDirectory"]


class RunDirectory:
    """The files of one run.

    Args:
        path: The directory, which need not exist yet, or shipped:NAME.

    Raises:
        RunError: If its name is not UTF-8, or no such model is shipped.

    Attributes:
        name: The run's name in captions: that of the directory.
        recipe: The resolved recipe. Files, too: `loss_curve`, `page`, `start`, the weights that training began with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = locate(path)
        try:
            str(path).encode()
        except UnicodeEncodeError:  # safetensors and TensorBoard open no file of such a name
            remedy = "Rename it, or set PYTHONUTF8=1 if the terminal's letters are UTF-8."
            raise RunError(f"{path}: the name of a run directory must be UTF-8. {remedy}") from None
        self.name = path.absolute().name
        self.recipe, self.loss_curve, self.page = path / "recipe.yaml", path / "loss.png", path / "report.html"
        self.checkpoints, self.samples, self.tensorboard = path / "checkpoints", path / "samples", path / "tensorboard"
        self._manifest, self._metrics, self._codec = path / "manifest.json", path / "metrics.jsonl", path / "codec"
        self._measured, self.start = (path / f"{name}.safetensors" for name in ("process", "start"))
        # The recipe, which makes this a run, is the first to go and the last to come.
        contents = (self._manifest, self._metrics, self.loss_curve, self.samples, self.tensorboard, self.checkpoints)
        self._own = (self.recipe, self.page, *contents, self._measured, self._codec, self.start)
        self._lock: Lock | None = None

    def exists(self) -> bool:
        """Whether this is a run directory: a recipe.yaml alone may be anybody's.

        Raises:
            RunError: If a link in it leads outside.
        """
        self.check_links()
        # Unlike Path.is_file, these are False of a name that the file system cannot hold.
        return os.path.isfile(self.recipe) and (os.path.isfile(self._manifest) or os.path.isdir(self.checkpoints))

    def require(self) -> None:
        """Raise a RunError unless there is a run to resume."""
        if not self.exists():
            raise RunError(f"{self.path}: no run to resume. Leave out --resume to start one.")

    def check_links(self) -> None:
        """Raise a RunError if a link leads out of the directory: nothing is read, written or deleted through it."""
        for path in self._own:
            inner = os.walk(path) if path != self.samples else ()  # images are replaced, and never read
            entries = (Path(folder, name) for folder, folders, names in inner for name in (*folders, *names))
            for entry in (path, *entries):
                if os.path.islink(entry) and not is_inside(entry, self.path):
                    problem = f"this link leads to {os.path.realpath(entry)}, outside the run directory"
                    remedy = "Replace it by what it leads to, or move the whole directory and link to that."
                    raise RunError(f"{entry}: {problem}. {remedy}")

    def check(self, resume: bool, overwrite: bool, needed: int) -> tuple[object, ...]:
        """Check that a run can be written here; nothing is changed.

        Args:
            resume: The run that is here is continued.
            overwrite: It may be replaced.
            needed: Bytes that will be written, about.

        Returns:
            What `written` needs to know.

        Raises:
            RunError: If it cannot be, or another process is writing here.
        """
        check_free(self.path)
        if resume:
            self.require()
            self._check_kinds()
        own = {path.name for path in self._own if path != self.recipe}
        remedy = "Continue it with --resume, replace"
        check_output(self.path, "run", self.exists(), resume or overwrite, needed, remedy, own)
        return self._state()

    @contextmanager
    def written(self, before: tuple[object, ...], main: bool) -> Iterator[None]:
        """Keep other commands from writing a run here.

        Args:
            before: What `check` returned.
            main: Whether this process, of several that train together, is the one that writes.

        Raises:
            RunError: If another process is writing here, or has since `check`.
            RunFailed: If the block fails because the directory is gone, or with an OSError.
        """
        with ExitStack() as stack:
            self._lock = stack.enter_context(locked(self.path)) if main else None
            if main and self._state() != before:
                raise RunError(f"{self.path}: another process has written to it since this one started. Start again.")
            try:
                yield
            except Exception as error:
                self.check_present()
                if isinstance(error, OSError):
                    problem = f"{self.path}: {error}. Fix the problem, then continue with --resume."
                    raise RunFailed(problem) from error
                raise

    def check_present(self) -> None:
        """Raise a RunFailed if the directory that `written` locks was deleted, moved or replaced."""
        if self._lock is not None and self._lock.is_lost():
            problem = "the run directory was deleted or moved while the run was writing to it, and the run has stopped"
            remedy = "If it was moved, continue it there with --resume; otherwise start the run again"
            raise RunFailed(f"{self.path}: {problem}. {remedy}.")

    def create(
        self,
        recipe: str,
        measured: Mapping[str, Tensor],
        kept: Mapping[str, bytes],
        entries: Mapping[str, object] | None = None,
    ) -> None:
        """Fill the directory: the recipe, what was measured of the data, and the files that the data need.

        The manifest gets the digests of the latter, see `check_kept`, and `entries`. All files of an older run are
        removed, and no others.

        Raises:
            RunError: If that fails; no part of a run is left then.
        """
        try:
            self._clear()
            try:
                self._make_folders()
                if measured:
                    _write(self._measured, save({name: tensor.contiguous() for name, tensor in measured.items()}))
                for name, content in kept.items():
                    path = self._kept(name)
                    path.parent.mkdir(exist_ok=True)
                    _write(path, content)
                digests = {"kept": {name: digest(self.path / name) for name in kept}} if kept else {}
                self.update_manifest(started=now(), **digests, **(entries or {}))
                _write(self.recipe, recipe.encode())
            except BaseException:
                with suppress(OSError):
                    self._clear()
                raise
        except OSError as error:
            raise RunError(f"{self.path}: the directory cannot be created ({error.strerror}). {ANOTHER}") from error

    def reopen(self, entries: Mapping[str, object]) -> None:
        """Create what is missing of the directory of a run that is continued, and set entries of the manifest."""
        self._make_folders()
        self.update_manifest(started=self.read_manifest().started or now(), **entries)

    def check_kept(self) -> None:
        """Check that the files that the data need are those of the training.

        Raises:
            RunError: If one is missing or has changed.
        """
        for name, expected in self.read_manifest().kept.items():
            path = self._kept(name)
            if not os.path.isfile(path) or digest(path) != expected:
                problem = f"the file is missing or has changed since training ({expected})"
                raise RunError(f"{path}: {problem}. The model needs the original file: restore it.")

    def replace_recipe(self, recipe: str) -> None:
        """Set the recipe of a run that is continued with other numbers."""
        _write(self.recipe, recipe.encode())

    @contextmanager
    def measured(self, expected: bool = True) -> Iterator[dict[str, Tensor]]:
        """What was measured of the data when the run began, to build a model with; nothing if that is not expected.

        Raises:
            RunError: If that is missing or damaged.
        """
        if not expected:
            yield {}
            return
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
            return manifest_of(entries)
        except Unreadable as error:
            if error.missing:
                return Manifest()
            raise RunError(f"{self._manifest}: the file is damaged ({error.problem}). {remedy}") from error
        except ValidationError as error:
            problem = ": ".join([*map(str, error.errors()[0]["loc"]), error.errors()[0]["msg"]])
            raise RunError(f"{self._manifest}: the file is damaged ({problem}). {remedy}") from error

    def update_manifest(self, **values: object) -> None:
        """Set entries of the manifest."""
        self.check_present()
        _write(self._manifest, json.dumps({**self.read_manifest().entries, **values}, indent=2).encode() + b"\n")

    def append_metrics(self, line: Mapping[str, float | int | None]) -> None:
        """Add a line to metrics.jsonl."""
        self.check_present()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOFOLLOW
        with os.fdopen(os.open(self._metrics, flags, 0o666), "a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl; a warning tells of others that are damaged.

        Raises:
            RunError: If the file cannot be read.
        """
        try:
            *lines, _ = [*read_bytes(self._metrics, METRICS_LIMIT).split(b"\n")]  # the last, if any, was cut by a kill
        except Unreadable as error:
            if error.missing:
                return []
            raise RunError(f"{self._metrics}: {error.problem}. Remove it: the run works without it.") from error
        whole = [values for line in lines if (values := metrics_of(line)) is not None]
        if damaged := len(lines) - len(whole):
            warnings.warn(f"{self._metrics}: {damaged} damaged lines of {len(lines)} are left out.", stacklevel=2)
        return whole

    def cut_metrics(self, step: int) -> None:
        """Drop lines after `step`: the resumed run will write them again."""
        self.check_present()
        lines = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        _write(self._metrics, "".join(lines).encode())

    def _check_kinds(self) -> None:
        """Raise a RunError if something else is where a folder or a file of the run belongs."""
        folders = (self.samples, self.checkpoints, self.tensorboard, self._codec)
        for path in self._own:
            if os.path.lexists(path) and not (os.path.isdir(path) if path in folders else not os.path.isdir(path)):
                kind = "folder" if path in folders else "file"
                raise RunError(f"{path}: a {kind} of the run belongs here. Remove this, or move it away.")

    def _make_folders(self) -> None:
        for folder in (self.path, self.samples, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)

    def _clear(self) -> None:
        for path in self._own:
            remove(path)

    def _kept(self, name: str) -> Path:
        """The path of a file that the data need; raises a RunError for one that is not in this directory."""
        if not is_inside(self.path / name, self.path):
            raise RunError(f"{self.path}: the run names a file outside its directory: {name!r}. Do not trust it.")
        return self.path / name

    def _state(self) -> tuple[object, ...]:
        """What is different after another process has written here."""
        found = (os.stat(path) if os.path.isfile(path) else None for path in (self.recipe, self._manifest))
        return tuple(status and (status.st_ino, status.st_mtime_ns, status.st_size) for status in found)


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
