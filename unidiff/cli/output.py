"""The options that say where samples are written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from unidiff.errors import RunError
from unidiff.writable import require_file

__all__ = ["OutputOptions"]

_ARRAY, _IMAGE = {"a .npy array": b"\x93NUMPY"}, {"a PNG image": b"\x89PNG\r\n\x1a\n"}


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
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write an image of the samples.")] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let --array and --out replace files of other kinds, too.")
    ] = False

    def __post_init__(self) -> None:
        for option, path, kind in (("--array", self.array, _ARRAY), ("--out", self.out, _IMAGE)):
            if path is not None:
                require_file(path, option, {} if self.overwrite else kind)
        if self.out is not None and self.array is not None and self.out.absolute() == self.array.absolute():
            raise RunError(f"--out {self.out}: --array writes to this file. Name another one for the image.")

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
