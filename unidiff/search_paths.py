"""Where data may lie on this computer: as given, under $UNIDIFF_DATA, in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from unidiff.errors import DataError

__all__ = ["Absent", "cache", "candidates", "find", "shared"]


class Absent(DataError):
    """The data are nowhere to be had. Only this may be covered by a stand-in; a corrupt file never is."""


def shared() -> Path | None:
    """The folder named by the environment variable UNIDIFF_DATA, or None."""
    named = os.environ.get("UNIDIFF_DATA")
    return Path(named).expanduser() if named else None


def cache() -> Path:
    """The folder of the user's cache that downloads go to."""
    import pooch

    return Path(pooch.os_cache("unidiff"))


def candidates(path: str) -> list[Path]:
    """Places that a path may mean: itself, then, if it is relative, the same under $UNIDIFF_DATA."""
    given = Path(path).expanduser()
    folder = shared()
    return [given] if given.is_absolute() or folder is None else [given, folder / given]


def find(path: str, parameter: str) -> Path:
    """The first of the `candidates` that exists.

    Args:
        path: A file or folder.
        parameter: The constructor's parameter that gave it, for the message.

    Raises:
        Absent: If none exists; the message lists the places.
    """
    places = candidates(path)
    for place in places:
        if place.exists():
            return place
    remedy = "Correct the path" if shared() else "Correct the path, or set UNIDIFF_DATA to the folder that holds it"
    raise Absent(f"{parameter}: {path!r} does not exist (looked for {', '.join(map(str, places))}). {remedy}.")
