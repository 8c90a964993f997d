"""What becomes of an error that nobody foresaw: it is written whole to a file, and answered by one sentence."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

from unidiff._version import __version__
from unidiff.errors import REPORT
from unidiff.text import first_line

__all__ = ["EXIT_CODE", "run_directory", "working_directory", "write_report"]

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
# The run directory of the command, where a report of an unforeseen error belongs; set by the commands.
run_directory: ContextVar[Path | None] = ContextVar("run_directory", default=None)
_LIBRARIES = ("torch", "numpy", "accelerate", "safetensors", "pydantic", "typer", "matplotlib", "pillow")


def write_report(error: BaseException) -> str:
    """Write an error with its traceback, the versions and the command to a file; the sentence that names the file.

    It lies in the run directory if there is one, and else in the folder for temporary files.
    """
    import platform
    import tempfile

    lines = [
        f"command: {sys.argv}",
        f"directory: {working_directory() or 'is gone'}",
        f"unidiff {__version__}, python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
        "",
        "".join(traceback.format_exception(error)),
    ]
    what = f"an unexpected error, {type(error).__name__}: {first_line(error)}"
    for folder in (run_directory.get(), None):
        path = ""
        try:
            folder = folder or Path(tempfile.gettempdir())  # an OSError if there is none
            number, path = tempfile.mkstemp(".txt", REPORT, folder)
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write("\n".join(lines))
        except OSError:
            with suppress(OSError):
                os.unlink(path)
            continue
        return f"{what}\nThe whole of it is in {path}: please report it with that file (--debug shows it here)."
    return f"{what}\nIt could not be written to a file; --debug shows the whole of it: please report it."


def working_directory() -> str | None:
    """The working directory; None if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _version(library: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(library)
    except (metadata.PackageNotFoundError, OSError):
        return "is missing"
