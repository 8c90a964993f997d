"""The name under which unidiff is installed: `unidiff` on the Python index is another package, a parser of diffs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

__all__ = ["DISTRIBUTION", "install", "require_own_files", "warn_of_the_other"]

DISTRIBUTION = "unidiff-diffusion"
_REPAIR = f"`pip uninstall -y unidiff {DISTRIBUTION}`, then `pip install {DISTRIBUTION}`"


def install(extra: str) -> str:
    """The command that installs an extra of unidiff."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def warn_of_the_other(folder: Path) -> None:
    """Warn if the parser of diffs has files in the folder of this package: one of the two is overwritten."""
    if (folder / "patch.py").exists():
        message = f"another package named unidiff, a parser of diffs, is installed in the same folder: {_REPAIR}"
        warnings.warn(message, stacklevel=3)


def require_own_files() -> None:
    """End the command in one sentence where the parser of diffs has replaced, or its removal deleted, the package."""
    if not hasattr(sys.modules["unidiff"], "NAMESPACES"):
        sys.exit(f"unidiff: files of another package named unidiff, a parser of diffs, replaced this one: {_REPAIR}.")
