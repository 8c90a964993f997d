"""The conditions under which samples of a run are drawn, and the model that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.denoiser import Denoiser
from unidiff.tasks.generation import GenerationRun
from unidiff.tasks.generation_report import examples

__all__ = ["Condition", "Conditioned", "usual"]


class Conditioned(NamedTuple):
    """A model with the conditions of its samples.

    Attributes:
        denoiser: The model of a run, guided perhaps.
        examples: The conditions, which samples take in turn, and the data they were made from, where these are known.
        conditioning: What made the images of a model conditioned on images.
    """

    denoiser: Denoiser
    examples: Examples
    conditioning: ImageConditioning | None = None

    def in_turn(self, count: int) -> dict[str, Tensor]:
        """The conditions of `count` samples."""
        return {name: value[torch.arange(count) % len(value)] for name, value in self.examples.cond.items()}


def usual(run: GenerationRun, count: int) -> Conditioned:
    """All classes in turn, or a test image for each of `count` samples, if the run is conditioned on any."""
    return Conditioned(run.denoiser, examples(run.recipe, count))


Condition = Callable[[GenerationRun, int], Conditioned]
