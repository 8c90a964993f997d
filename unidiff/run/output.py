"""Whether results can be written into a directory."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from unidiff.errors import REPORT, RunError
from unidiff.files import PARTIAL
from unidiff.lock import LOCK, check_free
from unidiff.run.shipped import require_own
from unidiff.writable import require_writable

__all__ = ["ANOTHER", "check_output"]

ANOTHER = "Choose another directory with --out."


def check_output(
    directory: Path,
    noun: str,
    exists: bool,
    overwrite: bool,
    needed: int,
    remedy: str = "Replace",
    own: Collection[str] = (),
) -> None:
    """Check that results can be written into a directory; nothing is changed.

    Args:
        directory: The directory; it need not exist yet.
        noun: What the results are, in a word: "comparison".
        exists: Results of this type are there.
        overwrite: They may be replaced.
        needed: Bytes that will be written, about.
        remedy: How the remedy begins if results are there.
        own: Names that may be parts of such results, of a process that was killed.

    Raises:
        RunError: If the directory is in use, not writable, or too small.
    """
    require_own(directory)
    check_free(directory)
    require_writable(directory, needed=needed, remedy=ANOTHER)
    article = "an" if noun[0] in "aeiou" else "a"
    if exists and not overwrite:
        choices = f"{remedy} it with --overwrite, or choose another directory with --out."
        raise RunError(f"{directory}: {article} {noun} is already there. {choices}")
    if exists or not os.path.isdir(directory):
        return
    found = {path.name: path for path in directory.iterdir() if not path.name.startswith((PARTIAL, REPORT))}
    killed = found.pop(LOCK, None) is not None  # while it created the directory
    if found.keys() - set(own):
        raise RunError(f"{directory}: the directory holds files that are not {article} {noun}. {ANOTHER}")
    if not (overwrite or killed) and any(os.path.isfile(path) or any(path.iterdir()) for path in found.values()):
        choices = "Replace them with --overwrite, or choose another directory with --out."
        raise RunError(f"{directory}: parts of {article} {noun} are there, which is not whole. {choices}")
