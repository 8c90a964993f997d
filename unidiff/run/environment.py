"""What a result may depend on beside the recipe."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from unidiff._version import __version__

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """What a result may depend on beside the recipe: versions, git commit, machine."""
    libraries = ["torch", "numpy", "accelerate", "safetensors", "einops", "pydantic", "scikit-learn", "pillow"]
    return {
        "unidiff": __version__,
        "git": _git_commit(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in libraries},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    """Commit of the checkout that unidiff is run from, "-dirty" if changed; None for an installed package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)", cpuinfo.read_text() if cpuinfo.is_file() else "", re.M)
    return model[1] if model else platform.processor() or platform.machine()
