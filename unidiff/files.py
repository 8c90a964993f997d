"""Write a file or a folder whole or not at all, or raise an OSError; digests."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unidiff.machine import is_alive, machine
from unidiff.reading import open_regular

__all__ = [
    "NOFOLLOW",
    "PARTIAL",
    "digest",
    "digest_of",
    "is_inside",
    "parents",
    "remove",
    "remove_leftovers",
    "save_new",
    "whole_file",
    "whole_files",
    "whole_folder",
]

PARTIAL = ".partial-"  # how the names of unfinished files and folders begin; the machine and the process follow
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)  # a flag that Windows does not have
_LEFTOVER = re.compile(re.escape(PARTIAL) + r"([0-9a-f]{8})-([0-9a-f]{1,8})-|" + re.escape(PARTIAL) + "[0-9a-f]{16}")
_AT_WORKING_DIRECTORY, _RENAME_EXCHANGE = -100, 2  # of Linux
_OLD = 86400.0  # seconds after which an unfinished file of another machine is taken for left behind


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """An error of safetensors while it writes, on a full disk for example, is none of Python's: make it an OSError."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise OSError(str(error)) from error
        raise


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, which replaces `path` when the block ends.

    If the block fails, the temporary file is removed and `path` is as it was. A symbolic link at `path` is replaced,
    not followed; a device or a pipe raises an OSError. Permissions are those of the umask.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "Not a regular file, so it is not replaced", str(path))
    partial = _beside(path)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666))
    try:
        with _as_os_errors():
            yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.absolute().parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def save_new(write: Callable[[Path], object], free: Callable[[], Path]) -> Path:
    """Write a file, and give it a name that is free when it is whole: what another process has written stays.

    Args:
        write: Writes to a path.
        free: A path that is free, of several beside each other; called again if it is taken by then.

    Returns:
        The path.
    """
    partial = _beside(free())
    try:
        write(partial)
        while True:
            path = free()
            try:
                os.link(partial, path)
            except FileExistsError:
                continue
            except OSError:  # a file system without hard links
                os.replace(partial, path)
            return path
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty temporary folder beside `path` to fill, which replaces `path` when the block ends.

    Missing parents are created. If the block fails, nothing has changed. A symbolic link at `path` stays; the folder
    that it points to is replaced. Where the system cannot exchange two folders, the old one is set aside for a moment;
    what a process killed in that moment left there is put back when the folder is written again.
    """
    final = Path(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(final.name)).hexdigest()[:16]  # the name itself may be as long as names can be
    partial, old = _beside(final), final.with_name(f".replaced-{name}")
    with parents(final.parent):
        try:
            if old.is_dir() and not (old.is_symlink() or final.exists()):
                os.replace(old, final)
            remove(old)
            partial.mkdir()
            with _as_os_errors():
                yield partial
            _sync_tree(partial)
            if not (final.is_dir() and _exchanged(partial, final)):
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
    with parents(folder):
        try:
            partial.mkdir()
            with _as_os_errors():
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


def _beside(path: Path) -> Path:
    """A new short name beside a path, with its suffix, on which some writers depend."""
    path = path.absolute()
    remove_leftovers(path.parent)
    return path.with_name(f"{PARTIAL}{machine()}-{os.getpid():x}-{secrets.token_hex(4)}{path.suffix[:16]}")


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step: whether the system (Linux) and its file system can, and have."""
    import ctypes

    try:
        rename: Any = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old one
        return False
    paths = map(ctypes.c_char_p, map(os.fsencode, (one, other)))
    first, second = ((_AT_WORKING_DIRECTORY, path) for path in paths)
    return bool(rename(*first, *second, _RENAME_EXCHANGE) == 0)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there. A link is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes left in a folder.

    Those of another machine may be in the making, and stay until they are a day old.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if (match := _LEFTOVER.match(name)) is None:
                continue
            path = folder / name
            with suppress(OSError):
                if match[1] == machine():
                    dead = not is_alive(int(match[2], 16))
                else:
                    dead = time.time() - os.lstat(path).st_mtime > _OLD
                if dead:
                    remove(path)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, is below a folder; False of a name that no file can have."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:
        return False


@contextmanager
def parents(folder: Path) -> Iterator[None]:
    """Create a folder and its missing parents; if the block fails, remove those of them that are empty."""
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
