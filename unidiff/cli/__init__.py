"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

from unidiff.distribution import require_own_files

require_own_files()

from unidiff.cli.app import main  # noqa: E402  (without its own files it could not be imported)

__all__ = ["main"]
