"""A training run as its task sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unidiff import plot
from unidiff.data.base import OpenDataset
from unidiff.errors import RunError
from unidiff.run.directory import RunDirectory
from unidiff.run.page import write_run_page
from unidiff.run.task import Reporter
from unidiff.training.loop import Interrupted

__all__ = ["Session"]


@dataclass(frozen=True)
class Session:
    """A training run as its task sees it: its files, its data, and its reporter.

    Attributes:
        files: The run directory.
        source: The opened data.
        reporter: Receives progress and notices.
        precision: Number format of the network's arithmetic.
        stop: Whether the user wants it to end.
        steps: Optimiser steps of the whole training.
    """

    files: RunDirectory
    source: OpenDataset
    reporter: Reporter
    precision: torch.dtype
    stop: Callable[[], bool]
    steps: int

    def poll(self) -> None:
        """Raise Interrupted if the user wants the report to end: training is saved, a resumed run reports again."""
        if self.stop():
            raise Interrupted(self.steps)

    def finish(self, entries: Mapping[str, Any], recipe: Mapping[str, Any], page: bool) -> None:
        """Set the last entries of the manifest, and write the page of the run if it is wanted."""
        self.files.update_manifest(**entries)
        if page:
            write_run_page(self.files, recipe, self.reporter.notice)

    def trained(self) -> tuple[float, float]:
        """Seconds of training and the last loss, after drawing the curve of the loss."""
        metrics = self.files.read_metrics()
        if not metrics:
            problem = "metrics.jsonl has no whole line, so that the training cannot be reported"
            raise RunError(f"{self.files.path}: {problem}. Restore it; the model can be sampled from without it.")
        steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
        plot.save_loss_curve(steps, losses, self.files.loss_curve, self.files.name)
        return metrics[-1]["seconds"], losses[-1]
