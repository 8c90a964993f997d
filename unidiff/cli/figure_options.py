"""The option that says in which formats figures are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from unidiff.errors import RunError

__all__ = ["FigureOptions"]

_FORMATS = ("png", "svg", "pdf")  # those of unidiff.plot, which is slow to import


@dataclass(frozen=True)
class FigureOptions:
    """In which formats figures are written, beside PNG, which reports and other commands read.

    Raises:
        RunError: If there is no such format.
    """

    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="LIST", help="Also write figures as vector files beside the PNG: svg,pdf."),
    ] = None

    def __post_init__(self) -> None:
        for name in self._names:
            if name not in _FORMATS:
                allowed = "must be one or several of png, svg, pdf, separated by commas"
                raise RunError(f"--format {self.formats}: {allowed}, got {name!r}.")

    @property
    def _names(self) -> list[str]:
        return [] if self.formats is None else [name.strip().lower() for name in self.formats.split(",")]

    @property
    def words(self) -> list[str]:
        """The option as it is written on a command line."""
        return [] if self.formats is None else ["--format", self.formats]

    @contextmanager
    def written(self) -> Iterator[None]:
        """Figures of the block are written in these formats, too."""
        from unidiff.plot import also_as

        with also_as(self._names):
            yield
