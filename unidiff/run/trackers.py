"""Where the curves of a run go beside its own metrics.jsonl: TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unidiff.errors import ParameterError
from unidiff.training.settings import Training

__all__ = ["Trackers", "check_trackers"]


def check_trackers(settings: Training) -> None:
    """Refuse a tracker that is not installed, before anything is done.

    Raises:
        ParameterError: With the command that installs it.
    """
    if settings.wandb and importlib.util.find_spec("wandb") is None:
        problem = "Weights & Biases is not installed; run `pip install unidiff[wandb]` or remove this key."
        raise ParameterError("training.wandb", problem)


class Trackers:
    """The trackers that a recipe asks for, open between `open` and `close`.

    Args:
        settings: The training section.
        events: Folder of TensorBoard's events.
        name: Name of the run.
        started: When it began; with the name it identifies the run to Weights & Biases when it is resumed.
        recipe: The resolved recipe, to be shown beside the curves.
    """

    def __init__(self, settings: Training, events: Path, name: str, started: str, recipe: Mapping[str, Any]) -> None:
        self._settings, self._events, self._name, self._recipe = settings, events, name, recipe
        self._identity = re.sub("[^A-Za-z0-9_-]", "-", f"{name}-{started}")
        self._writer: Any = None
        self._session: Any = None

    def open(self, step: int) -> None:
        """Start them; what was tracked after `step` by an earlier part of the run is replaced."""
        if self._settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._events), purge_step=step + 1 if step else None)
        if self._settings.wandb:
            import wandb

            self._session = wandb.init(
                project=self._settings.wandb,
                name=self._name,
                id=self._identity,
                config=dict(self._recipe),
                resume="allow",
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
        if self._writer is not None:
            self._writer.close()
        if self._session is not None:
            self._session.finish()
