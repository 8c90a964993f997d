"""Whether a path can be written to, asked before work begins; nothing is changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from unidiff.errors import RunError
from unidiff.reading import open_regular

__all__ = ["require_file", "require_writable"]

_LONGEST = "checkpoints/" + 60 * "x"  # a path that fits only just leaves no room for an unfinished file beside it


def require_writable(folder: str | Path, needed: int = 0, remedy: str = "Choose another path.") -> None:
    """Raise a RunError unless files can be written into a folder, which may not exist yet; nothing is changed.

    Args:
        folder: The folder.
        needed: Free bytes required.
        remedy: What the message ends with.
    """
    path = Path(folder).absolute()
    if Path(folder).parts[:1] == ("~",) and not os.path.lexists("~"):  # the shell leaves that of --out=~/runs alone
        raise RunError(f"{folder}: ~ is no directory here. Write the path of the home directory instead.")
    try:
        existing = next(parent for parent in (path, *path.parents) if _is_taken(parent))
        _is_taken(path / _LONGEST)
        if not existing.is_dir():
            raise RunError(f"{folder}: {existing} is not a directory. {remedy}")
        if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise RunError(f"{folder}: no permission to write in {existing}. {remedy}")
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise RunError(f"{folder}: this path cannot be used ({error.strerror}). {remedy}") from error
    if free < needed:
        raise RunError(f"{folder}: {needed / 1e6:.0f} MB are needed, but only {free / 1e6:.0f} MB are free. {remedy}")


def require_file(
    path: str | Path,
    option: str,
    kind: Mapping[str, bytes] = MappingProxyType({}),
    instead: str = "Replace it with --overwrite, or choose another file.",
) -> None:
    """Raise a RunError, which begins with the option that names the file, unless it can be written.

    Args:
        path: The file.
        option: The option.
        kind: What may be replaced, and how the content of such a file begins; {} for any file.
        instead: What the message ends with if the file that is there is of another kind.
    """
    folder, what, remedy = Path(path).absolute().parent, f"{option} {path}", "Choose another file."
    if not os.path.isdir(folder):
        raise RunError(f"{what}: the directory {folder} does not exist. Create it, or choose another file.")
    try:
        taken = _is_taken(Path(path)) and os.path.exists(path)
        if _is_of_the_system(Path(path)) or (taken and not os.path.isfile(path)):
            found = "directory; name a file" if os.path.isdir(path) else "device or a pipe; name a file"
            raise RunError(f"{what}: this is a {found}.")
    except OSError as error:
        raise RunError(f"{what}: this name cannot be used ({error.strerror}). {remedy}") from error
    require_writable(folder, remedy=remedy)
    for noun, begins in kind.items():
        if os.path.isfile(path) and os.path.getsize(path) and _beginning(path, len(begins)) != begins:
            problem = f"the file that is there is not {noun}"
            raise RunError(f"{what}: {problem}. {instead}")


def _beginning(path: str | Path, count: int) -> bytes:
    """The first bytes of a file; none of one that cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(count)
    except OSError:
        return b""


def _is_of_the_system(path: Path) -> bool:
    """Whether a path is one of the kernel's, as /dev/stdout is, also where that is a link to a file."""
    places = os.path.realpath(path.parent), os.readlink(path) if os.path.islink(path) else ""
    return any(Path(place).parts[:2] in (("/", "proc"), ("/", "sys")) for place in places)


def _is_taken(path: Path) -> bool:
    """Whether a path exists, if only as a broken link; raises OSError if it is not a valid path."""
    try:
        return bool(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
