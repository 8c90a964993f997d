"""Where data may be: at their path, under $UNIDIFF_DATA, in the user's cache, or (unless $UNIDIFF_OFFLINE) online."""

from __future__ import annotations

import os
from pathlib import Path

from unidiff.errors import DataError

__all__ = ["Absent", "cache", "find", "require_online", "shared"]


class Absent(DataError):
    """The data are unavailable. Only this permits a fallback; a corrupt file never does."""


def shared() -> Path | None:
    """The folder named by the environment variable UNIDIFF_DATA, or None."""
    named = os.environ.get("UNIDIFF_DATA")
    return Path(named).expanduser() if named else None


def cache() -> Path:
    """The folder of the user's cache that downloads go to."""
    import pooch

    return Path(pooch.os_cache("unidiff"))


def require_online() -> None:
    """Raise Absent if the environment variable UNIDIFF_OFFLINE switches downloads off."""
    if os.environ.get("UNIDIFF_OFFLINE", "") not in ("", "0"):
        raise Absent("downloads are switched off by the environment variable UNIDIFF_OFFLINE")


def find(path: str, parameter: str) -> Path:
    """The file or folder at a path; a relative one may also be under $UNIDIFF_DATA.

    Args:
        path: A file or folder.
        parameter: The constructor's parameter that holds it, for the message.

    Raises:
        Absent: If it does not exist; the message lists where it was searched for.
    """
    plain, folder = Path(path).expanduser(), shared()
    candidates = [plain] if plain.is_absolute() or folder is None else [plain, folder / plain]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    remedy = "Correct the path" if folder else "Correct the path, or set UNIDIFF_DATA to the folder that holds it"
    raise Absent(f"{parameter}: {path!r} does not exist (looked for {', '.join(map(str, candidates))}). {remedy}.")
