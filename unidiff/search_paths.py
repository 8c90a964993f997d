"""Where data may be: at their path, under $UNIDIFF_DATA, in the user's cache, or (unless $UNIDIFF_OFFLINE) online."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from unidiff.errors import DataError

__all__ = ["Absent", "cache", "expand", "find", "offline", "require_online", "shared"]


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_offline = ContextVar("_offline", default="")  # who has switched downloads off here


class Absent(DataError):
    """The data are unavailable. Only this permits a fallback; a corrupt file never does."""


def shared() -> Path | None:
    """The folder named by the environment variable UNIDIFF_DATA, or None."""
    named = os.environ.get("UNIDIFF_DATA")
    return expand(named, "UNIDIFF_DATA") if named else None


def cache() -> Path:
    """The folder of the user's cache that downloads go to."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("unidiff"))


@contextmanager
def offline(who: str) -> Iterator[None]:
    """Without downloads, which `who`, such as a command, never starts."""
    token = _offline.set(who)
    try:
        yield
    finally:
        _offline.reset(token)


def require_online() -> None:
    """Raise Absent if `offline` or the environment variable UNIDIFF_OFFLINE switches downloads off."""
    if who := _offline.get():
        raise Absent(f"{who} downloads nothing")
    if os.environ.get("UNIDIFF_OFFLINE", "") not in ("", "0"):
        raise Absent("downloads are switched off by the environment variable UNIDIFF_OFFLINE")


def expand(path: str | Path, parameter: str) -> Path:
    """A path with the home directory for `~` and the values of environment variables for `$NAME` and `${NAME}`.

    A path that exists as it is written stays as it is.

    Args:
        path: A path as it is written.
        parameter: The constructor's parameter that holds it, for the message.

    Raises:
        DataError: If a variable or a user is not known, or the path is empty.
    """
    text = os.fspath(path)
    if not text:
        raise DataError(f"{parameter} must be a path, got {text!r}. Write . for the working directory.")
    if "\0" in text:
        raise DataError(f"{parameter} must be a path, got {text!r}: no name has the character U+0000. Remove it.")
    if not os.path.lexists(text):
        for name in (plain or braced for plain, braced in _VARIABLE.findall(text)):
            if name not in os.environ:
                problem = f"{text!r} has the environment variable {name}, which is not set"
                raise DataError(f"{parameter}: {problem}. Set it, or write the path out.")
        text = _VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        problem = f"{text!r}: there is no user of this name, so it has no home directory"
        raise DataError(f"{parameter}: {problem}. Write the path out.") from error


def find(path: str, parameter: str) -> Path:
    """The file or folder at a path, see `expand`; a relative one may also be under $UNIDIFF_DATA.

    Args:
        path: A file or folder.
        parameter: The constructor's parameter that holds it, for the message.

    Raises:
        Absent: If it does not exist; the message lists where it was searched for.
        DataError: If there can be no such path.
    """
    plain, folder = expand(path, parameter), shared()
    candidates = [plain] if plain.is_absolute() or folder is None else [plain, folder / plain]
    for candidate in candidates:
        try:
            os.stat(candidate)
            return candidate
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:  # a name that is too long, or has a null character
            problem = getattr(error, "strerror", None) or error
            raise DataError(f"{parameter}: {path!r} cannot be used ({problem}). Correct the path.") from error
    remedy = "Correct the path" if folder else "Correct the path, or set UNIDIFF_DATA to the folder that holds it"
    raise Absent(f"{parameter}: {path!r} does not exist (looked for {', '.join(map(str, candidates))}). {remedy}.")
