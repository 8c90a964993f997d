"""Runs whose models guide other ones: classifiers and contrastive encoders."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from typing_extensions import Unpack

from unidiff.condition.base import Condition, named
from unidiff.denoiser import Denoiser
from unidiff.errors import RecipeError
from unidiff.guidance.base import Guided
from unidiff.run.load import LoadOptions, Run, load

__all__ = ["GuideRun", "load_guide"]


@dataclass(frozen=True, repr=False)
class GuideRun(Run):
    """A trained model that guides a generative one; see `Run`."""

    @property
    @abstractmethod
    def asked(self) -> tuple[Condition, ...]:
        """What it guides to."""

    @abstractmethod
    def guide(self, model: Denoiser, scale: float) -> Guided:
        """The model under its guidance."""

    @property
    def classes(self) -> int | None:
        """Number of classes that it tells apart; None if it guides to something else."""
        return getattr(named(self.asked, "label"), "classes", None)


def load_guide(directory: str | Path, **options: Unpack[LoadOptions]) -> GuideRun:
    """Read a run whose model guides another one.

    Raises:
        RecipeError: If it is of another task.
    """
    run = load(directory, **options)
    if not hasattr(run, "guide"):
        noun = "a classifier or a contrastive encoder"
        raise RecipeError(f"{directory}: this run is {run.recipe.noun}, not of {noun}.")
    return cast(GuideRun, run)
