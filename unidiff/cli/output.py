"""The options that say where samples are written."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from unidiff.errors import RunError
from unidiff.writable import require_file

__all__ = ["OutputOptions", "place_of"]

_ARRAY = {"a .npy array": b"\x93NUMPY"}
_IMAGES = {
    "": {"a PNG image": b"\x89PNG\r\n\x1a\n"},
    ".svg": {"an SVG image": b"<?xml"},
    ".pdf": {"a PDF document": b"%PDF"},
}
_IMAGES[".png"] = _IMAGES[""]


@dataclass(frozen=True)
class OutputOptions:
    """Where samples are written.

    Raises:
        RunError: If a file cannot be written, is of another kind, or both options name the same one.
    """

    array: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Write the samples: float32 (N, *shape) in [-1, 1]."),
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write an image of the samples, also .svg, .pdf.")
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Let --array and --out replace files of other kinds, too, but for those of a run."
        ),
    ] = False

    def __post_init__(self) -> None:
        image = _IMAGES.get("" if self.out is None else self.out.suffix.lower())
        if image is None:
            raise RunError(f"--out {self.out}: must be the name of a .png, .svg or .pdf file.")
        for option, path, kind in (("--array", self.array, _ARRAY), ("--out", self.out, image)):
            if path is not None:
                if not self.overwrite:
                    require_file(path, option, kind)
                elif _is_in_a_run(path):
                    require_file(path, option, kind, "It is part of a run: choose another file.")
                else:
                    require_file(path, option)
        if self.out is not None and self.array is not None and place_of(self.out) == place_of(self.array):
            raise RunError(f"--out {self.out}: --array writes to this file. Name another one for the image.")

    def keep(self, *files: Path | None) -> None:
        """Raise a RunError if the samples would replace one of these files, from which they are to be made."""
        for option, path in (("--array", self.array), ("--out", self.out)):
            if path is not None and place_of(path) in [place_of(file) for file in files if file is not None]:
                raise RunError(f"{option} {path}: the samples are made from this file. Choose another file.")

    def folder_of(self, run: Path) -> Path:
        """Where images of a run go without --out: its own folder of them, or the working directory of another's.

        Raises:
            RunError: If nothing can be written to the folder.
        """
        from unidiff.run.directory import RunDirectory
        from unidiff.run.shipped import is_shipped

        own = RunDirectory(run).exists() and not is_shipped(run)
        folder = RunDirectory(run).samples if own else Path()
        self.image_in(folder)
        return folder

    def image_in(self, folder: Path) -> Path:
        """Where the image goes: the file of --out, or the first free drawn-001.png, drawn-002.png, ... of a folder.

        Raises:
            RunError: If nothing can be written to the folder.
        """
        if self.out is not None:
            return self.out
        number = 1
        while os.path.lexists(path := folder / f"drawn-{number:03d}.png"):
            number += 1
        require_file(path, "--out")
        return path


def place_of(path: Path) -> Path:
    """A path without links and dots but for its own name: what is there is replaced, also a link."""
    return Path(os.path.realpath(path.parent), path.name)


def _is_in_a_run(path: Path) -> bool:
    from unidiff.run.directory import RunDirectory

    for folder in place_of(path).parents:
        with suppress(RunError):  # of a folder that cannot be one
            if RunDirectory(folder).exists():
                return True
    return False
