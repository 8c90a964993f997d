"""The lock of a directory that one process at a time may write to.

It is an exclusive `flock` of the file `.lock`, which records who holds it and is removed afterwards. The system drops
the lock of a process that has died, so what such a process left behind is taken over. A network file system may keep
`flock` to itself on each machine; two machines are then not kept apart. One without `flock`, and Windows, go by the
record alone: it is taken over if its process was one of this machine and is gone, and otherwise has to be removed.
"""

from __future__ import annotations

import json
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unidiff.errors import RunError
from unidiff.files import NOFOLLOW, parents
from unidiff.machine import is_alive, machine, now

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "Lock", "check_free", "locked"]

LOCK = ".lock"
_FLAGS = NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
_TRIES, _PAUSE = 10, 0.05  # a look at the lock by another process is over in a moment
_REMEDY = "Choose another directory with --out."


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    Attributes:
        directory: What is locked.
        descriptors: Of the directory, and of its lock file; open as long as it is held.
    """

    directory: Path
    descriptors: tuple[int, int]

    def is_lost(self) -> bool:
        """Whether the directory was deleted or moved, or another process took its place."""
        folder, file = self.descriptors
        try:
            if not os.path.samestat(os.stat(self.directory), os.fstat(folder)):
                return True
            return not os.path.samestat(os.lstat(self.directory / LOCK), os.fstat(file))
        except OSError:
            return not self.directory.is_dir()  # without its lock file alone, it is still ours


@contextmanager
def locked(directory: Path) -> Iterator[Lock]:
    """Hold the lock of a directory, which is created if missing, and removed after a failure if nothing is in it.

    Raises:
        RunError: If another process holds it, or the directory cannot be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(parents(directory))
            folder = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, folder)  # its number is not given to another directory until then
            file = _take(directory)
        except OSError as error:
            problem = f"the directory cannot be created or locked ({error.strerror}: {error.filename})"
            raise RunError(f"{directory}: {problem}. {_REMEDY}") from error
        stack.callback(os.close, file)
        lock = Lock(directory, (folder, file))
        stack.callback(_remove, lock)
        yield lock


def check_free(directory: Path) -> None:
    """Raise a RunError with the process that holds the lock of a directory, if one does; nothing is changed."""
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        if os.path.islink(path):
            raise RunError(f"{path}: this is a link, not a lock file. Remove it.") from None
        return  # there is none, or what prevents the run will be met in a moment
    try:
        _require_file(path, descriptor)
        free = _hold(descriptor, "LOCK_SH")
        if free is False or (free is None and _is_taken(descriptor)):
            raise _in_use(directory, descriptor)
    finally:
        os.close(descriptor)


def _take(directory: Path) -> int:
    """Open and lock the lock file, and record who holds it."""
    path = directory / LOCK
    for attempt in range(_TRIES):
        time.sleep(_PAUSE if attempt else 0)
        with ExitStack() as closing:
            try:
                new = True
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
            except FileExistsError:
                try:
                    new = False
                    descriptor = os.open(path, os.O_RDWR | _FLAGS)
                except FileNotFoundError:  # released in between
                    continue
            closing.callback(os.close, descriptor)
            _require_file(path, descriptor)
            held = _hold(descriptor, "LOCK_EX")
            if held is None and not new and not _is_taken(descriptor):
                os.unlink(path)  # created anew in the next attempt, by one process only
            elif (held or (held is None and new)) and _is_at(path, descriptor):
                _record(descriptor)
                closing.pop_all()
                return descriptor
            if attempt == _TRIES - 1:
                raise _in_use(directory, descriptor)
    raise RunError(f"{directory}: other processes are locking it. Try again.")


def _hold(descriptor: int, how: str) -> bool | None:
    """Lock an open file without waiting: whether that succeeded, or None where it cannot be done."""
    try:
        if fcntl is None:
            return None
        fcntl.flock(descriptor, getattr(fcntl, how) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no flock
        return None
    return True


def _is_taken(descriptor: int) -> bool:
    """Whether the process on record may be alive."""
    record = _holder(descriptor)
    return record.get("machine") != machine() or is_alive(int(record["process"]))


def _record(descriptor: int) -> None:
    record = {"process": os.getpid(), "host": platform.node(), "machine": machine(), "since": now()}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(record).encode() + b"\n")


def _holder(descriptor: int) -> dict[str, Any]:
    """The record of a lock file; empty if it is not one, as for a moment after the file is created."""
    with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        record = json.loads(os.read(descriptor, 4096))
        texts = {name: str(record[name]) for name in ("process", "host", "machine", "since")}
        if all(text.isprintable() and len(text) < 256 for text in texts.values()) and texts["process"].isdecimal():
            return texts
    return {}


def _in_use(directory: Path, descriptor: int) -> RunError:
    record = _holder(descriptor)
    who = "process {process} on {host}, since {since}".format(**record) if record else "another process"
    alone = "" if _hold(descriptor, "LOCK_SH") is not None else f" If it is gone, remove {directory / LOCK}."
    return RunError(f"{directory}: in use by {who}. Wait until it ends or stop it, or choose another --out.{alone}")


def _require_file(path: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise RunError(f"{path}: this is not a lock file of unidiff. Remove it.")


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _remove(lock: Lock) -> None:
    if not lock.is_lost():
        with suppress(OSError):
            os.unlink(lock.directory / LOCK)
