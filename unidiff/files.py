"""Write a file or a folder whole or not at all, or raise an OSError; digests; whether a path can be written to."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unidiff.errors import RunError
from unidiff.reading import open_regular

__all__ = [
    "PARTIAL",
    "digest",
    "digest_of",
    "require_writable",
    "whole_file",
    "whole_files",
    "whole_folder",
]

PARTIAL = ".partial-"  # how the names of unfinished files and folders begin


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, which replaces `path` when the block ends.

    If the block fails, the temporary file is removed and `path` is as it was. A symbolic link at `path` is replaced,
    not followed. Permissions are those of the umask.
    """
    path = Path(path)
    partial = _beside(path)
    partial.touch(exist_ok=False)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.absolute().parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty temporary folder beside `path` to fill, which replaces `path` when the block ends.

    Missing parents are created. If the block fails, nothing has changed. A symbolic link at `path` stays; the folder
    that it points to is replaced.
    """
    final = Path(path).resolve()
    partial, old = _beside(final), _beside(final)
    with _parents(final.parent):
        try:
            partial.mkdir()
            yield partial
            _sync_tree(partial)
            if final.is_dir():
                os.replace(final, old)
            os.replace(partial, final)
            _sync(final.parent)
        finally:
            if old.is_dir() and not final.exists():
                os.replace(old, final)
            for temporary in (partial, old):
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_files(folder: str | Path, last: str) -> Iterator[Path]:
    """A temporary folder inside `folder` for files, each of which replaces the one of its name when the block ends.

    Nothing else in `folder` is changed, and nothing at all if the block fails. Subfolders are not supported.

    Args:
        folder: Where the files go; created if missing.
        last: The file that marks the others as complete: it is moved after them.
    """
    folder = Path(folder).absolute()
    partial = _beside(folder / last)
    with _parents(folder):
        try:
            partial.mkdir()
            yield partial
            _sync_tree(partial)
            for file in sorted(partial.iterdir(), key=lambda file: (file.name == last, file.name)):
                os.replace(file, folder / file.name)
            _sync(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def digest(path: str | Path) -> str:
    """SHA-256 of a file's content, as "sha256:..."."""
    with open_regular(path) as file:
        return digest_of(iter(lambda: file.read(1 << 20), b""))


def digest_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of bytes one after another, as "sha256:..."."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return f"sha256:{total.hexdigest()}"


def require_writable(folder: str | Path, needed: int = 0, remedy: str = "Choose another path.") -> None:
    """Raise a RunError unless files can be written into a folder, which may not exist yet; nothing is changed.

    Args:
        folder: The folder.
        needed: Free bytes required.
        remedy: What the message ends with.
    """
    path = Path(folder).absolute()
    try:
        existing = next(parent for parent in (path, *path.parents) if _is_taken(parent))
        if not existing.is_dir():
            raise RunError(f"{folder}: {existing} is not a directory. {remedy}")
        if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise RunError(f"{folder}: no permission to write in {existing}. {remedy}")
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise RunError(f"{folder}: this path cannot be used ({error.strerror}). {remedy}") from error
    if free < needed:
        raise RunError(f"{folder}: {needed / 1e6:.0f} MB are needed, but only {free / 1e6:.0f} MB are free. {remedy}")


def _is_taken(path: Path) -> bool:
    """Whether a path exists, if only as a broken link; raises OSError if it is not a valid path."""
    try:
        return bool(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _beside(path: Path) -> Path:
    """A new short name beside a path, with its suffix, on which some writers depend."""
    return path.absolute().with_name(f"{PARTIAL}{secrets.token_hex(8)}{path.suffix[:16]}")


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Create a folder and its missing parents; after a failure, remove those of them that are empty."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for parent in new:
                parent.rmdir()
        raise


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    """Make a file or a folder's list of names durable."""
    with suppress(PermissionError):  # Windows opens no folder
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
