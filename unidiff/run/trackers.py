"""Where the curves of a run go beside its own metrics.jsonl: TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Mapping
from typing import Any

from unidiff.distribution import install
from unidiff.errors import ParameterError
from unidiff.run.directory import RunDirectory
from unidiff.training.settings import Training

__all__ = ["Trackers", "check_trackers"]


def check_trackers(settings: Training) -> None:
    """Raise a ParameterError, with the command that installs it, for a tracker that is not installed."""
    if settings.wandb and importlib.util.find_spec("wandb") is None:
        problem = f"Weights & Biases is not installed; run `{install('wandb')}` or remove this key."
        raise ParameterError("training.wandb", problem)


class Trackers:
    """The open trackers of a run; what they have after `step` from an earlier part of the run is replaced.

    Args:
        settings: The training section, which chooses them.
        files: The run; its name and start identify it to Weights & Biases when it is resumed.
        recipe: The resolved recipe, to be shown beside the curves.
        step: Optimiser steps done.
    """

    def __init__(self, settings: Training, files: RunDirectory, recipe: Mapping[str, Any], step: int) -> None:
        self._writer: Any = None
        self._session: Any = None
        self._thread_failed = threading.excepthook
        if settings.tensorboard:
            threading.excepthook = self._on_failure
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(files.tensorboard), purge_step=step + 1 if step else None)
        if settings.wandb:
            import wandb

            identity = re.sub("[^A-Za-z0-9_-]", "-", f"{files.name}-{files.read_manifest().started}")
            self._session = wandb.init(
                project=settings.wandb, name=files.name, id=identity, config=dict(recipe), resume="allow"
            )

    def track(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers of a step, by name."""
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        if self._session is not None:
            self._session.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish what was started."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            threading.excepthook = self._thread_failed
        if self._session is not None:
            self._session.finish()

    def _on_failure(self, failure: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread: `track` and `close` raise the error that it met."""
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self._thread_failed(failure)
