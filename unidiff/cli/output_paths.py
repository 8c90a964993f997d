"""Where commands write single files, checked before any work."""

from __future__ import annotations

import os
from pathlib import Path

from unidiff.errors import RunError

__all__ = ["check_place", "free_name"]


def check_place(option: str, path: Path | None, other: Path | None = None) -> None:
    """Refuse a file that cannot be written, or that another result goes to, before the time of sampling is spent."""
    if path is None:
        return
    if other is not None and path.absolute() == other.absolute():
        raise RunError(f"{option} {path}: the values go there. Name another file for the picture.")
    folder = path.absolute().parent
    if path.is_dir():
        raise RunError(f"{option} {path}: this is a directory; name a file.")
    if not folder.is_dir():
        raise RunError(f"{option} {path}: there is no directory {folder}. Make it, or choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{option} {path}: there is no permission to write in {folder}. Choose another place.")


def free_name(folder: Path) -> Path:
    """The first of drawn-001.png, drawn-002.png, ... that is not there."""
    number = 1
    while (path := folder / f"drawn-{number:03d}.png").exists():
        number += 1
    return path
