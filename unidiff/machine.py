"""This machine, its processes and its clock: whose an unfinished file or a lock is, since when, and who speaks."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache

__all__ = ["is_alive", "is_speaker", "machine", "now"]


@cache
def machine() -> str:
    """A short name of this machine, or of the container: where the number of a process means one of ours."""
    container = ""
    with suppress(OSError):
        container = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:8]


def is_speaker() -> bool:
    """Whether this process, of several under `accelerate launch`, is the one that prints and writes: the first."""
    return os.environ.get("WORLD_SIZE", "1") in ("", "0", "1") or os.environ.get("RANK", "0") == "0"


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
