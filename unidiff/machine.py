"""This machine, its processes and its clock: who an unfinished file or a lock belongs to, and since when."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache

__all__ = ["is_alive", "machine", "now"]


@cache
def machine() -> str:
    """A short name of this machine, or of the container: where the number of a process means one of ours."""
    container = ""
    with suppress(OSError):
        container = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:8]


def is_alive(process: int) -> bool:
    """Whether a process of this machine has not ended."""
    if os.name == "nt":
        return True  # where asking would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def now() -> str:
    """The time as ISO 8601, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
