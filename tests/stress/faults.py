"""Faults planted in a command: killed or denied at its n-th file operation, a full or read-only disk, little memory."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stress.command import limit_memory

_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def on_operations(act: Callable[[int], object]) -> None:
    """Call `act(n)` before the n-th operation of this process that changes files: from 1. It may raise an OSError.

    An operation is what makes, renames or removes a file or folder, opens a file for writing, or makes one durable.
    Files of the system (/dev, /proc) do not count.
    """
    count, inside = 0, False

    def operation() -> None:
        nonlocal count, inside
        if inside:
            return
        inside = True
        try:
            count += 1
            act(count)
        finally:
            inside = False

    def writes(path: object, mode: object, flags: int | None) -> bool:
        named = isinstance(path, (str, bytes)) and not os.fsdecode(path).startswith(("/dev/", "/proc/"))
        return named and bool(_WRITING & (flags or 0))

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event in _EVENTS or (event == "open" and writes(*values)):
            operation()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        operation()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)


def kill_at(n: int) -> Callable[[], None]:
    """Kill the process before its n-th file operation."""

    def act(count: int) -> None:
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: on_operations(act)


def deny_at(n: int, number: int, times: int) -> Callable[[], None]:
    """The n-th file operation and those that follow, `times` in all, fail with this error number."""

    def act(count: int) -> None:
        if n <= count < n + times:
            raise OSError(number, os.strerror(number))

    return lambda: on_operations(act)


def remove_at(n: int, path: Path) -> Callable[[], None]:
    """Somebody removes a folder before the n-th file operation."""

    def act(count: int) -> None:
        if count == n:
            shutil.rmtree(path, ignore_errors=True)

    return lambda: on_operations(act)


def count_into(path: Path) -> Callable[[], None]:
    """Write the number of file operations so far into a file, each time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    return lambda: on_operations(lambda count: os.pwrite(descriptor, str(count).encode(), 0))


def little(what: int, value: int) -> Callable[[], None]:
    """Limit a resource of the process: RLIMIT_FSIZE, RLIMIT_NOFILE."""
    return lambda: resource.setrlimit(what, (value, value))


def little_memory(more: int) -> Callable[[], None]:
    """Let the process add so many bytes of address space."""
    return lambda: limit_memory(more)


class Disk:
    """A small file system at a folder, of this process and those forked from it; gone with them.

    Raises:
        OSError: Where mounting is not permitted.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = os.fsencode(folder)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._must(self._libc.unshare(0x00020000))  # CLONE_NEWNS
        self._must(self._libc.mount(b"none", b"/", None, (1 << 18) | 16384, None))  # MS_PRIVATE, with all below
        self._mount(0, size)

    def _mount(self, flags: int, size: int) -> None:
        options = b"size=%d" % size
        self._must(self._libc.mount(b"tmpfs", self._folder, b"tmpfs", flags, options))

    def change(self, size: int, read_only: bool = False) -> None:
        """Make it larger, or read-only."""
        self._mount(32 | read_only, size)  # MS_REMOUNT, MS_RDONLY

    def _must(self, answer: int) -> None:
        if answer != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ESTALE)


def limits(draw: random.Random) -> dict[str, Callable[[], None]]:
    """A limit of each kind, as drawn."""
    return {
        "file size": little(resource.RLIMIT_FSIZE, draw.choice([0, 100, 1000, 5000, 20_000, 50_000, 200_000])),
        "handles": little(resource.RLIMIT_NOFILE, draw.randrange(3, 24)),
        "memory": little_memory(int(10 ** draw.uniform(5, 8.5))),
    }
