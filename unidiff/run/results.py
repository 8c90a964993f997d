"""A directory of results that are written once, all of them or none: what a comparison and an evolution leave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unidiff.errors import RunError, RunFailed
from unidiff.run.directory import RunDirectory

__all__ = ["check_place", "written_whole"]


def check_place(directory: Path, mark: str, kind: str, overwrite: bool, needed: int) -> None:
    """Refuse a directory that results must not or cannot be written to; nothing is changed.

    Args:
        directory: The directory.
        mark: Name of the file by which older results of this kind are known.
        kind: What the results are, in a word: "comparison".
        overwrite: Older results may be replaced.
        needed: Bytes that will be written, about.

    Raises:
        RunError: If the place is taken or not writable.
    """
    RunDirectory(directory).check_writable(needed)
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if not (directory / mark).is_file():
        raise RunError(f"{directory}: the directory holds files that are no {kind}. Choose another place with --out.")
    if not overwrite:
        article = "an" if kind[0] in "aeiou" else "a"
        remedy = "Replace it by --overwrite, or choose another place with --out."
        raise RunError(f"{directory}: {article} {kind} is already there. {remedy}")


@contextmanager
def written_whole(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder to write files of these names into; they reach the directory together, in this order, or not at all.

    Raises:
        RunFailed: If they cannot be written.
    """
    # Inside a directory that is there: `check_place` has seen that it can be written, its parent need not be.
    place = directory.absolute()  # "." has no name
    unfinished = place / ".partial" if place.is_dir() else place.with_name(f".{place.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        directory.mkdir(exist_ok=True)
        for name in names:
            os.replace(unfinished / name, directory / name)
    except OSError as error:
        raise RunFailed(f"{directory}: {error}. Choose another place with --out.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
