"""gradio, imported when it is needed and with nothing that it would send."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from typing import Any

from unidiff.errors import RunError

__all__ = ["gradio", "require_gradio"]


def require_gradio() -> None:
    """Raise a RunError if gradio is not installed."""
    if find_spec("gradio") is None:
        raise RunError("unidiff app needs gradio, which is not installed: `pip install 'unidiff-diffusion[app]'`.")


def gradio() -> Any:
    """The module; it and the hub's client are told to send nothing, which they read when they are imported.

    Raises:
        RunError: If it is not installed.
    """
    require_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("gradio")
