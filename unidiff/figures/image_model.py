"""The model of images that a figure is drawn with: a trained run, or the closed-form optimum for the digits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset
from unidiff.data.digits import Digits
from unidiff.denoiser import Denoiser
from unidiff.errors import RunError
from unidiff.evaluation.class_measures import ClassHistogram, class_histogram
from unidiff.evaluation.evaluate import feature_network
from unidiff.exact import Empirical
from unidiff.grid import Grid, default_grid
from unidiff.noise import Seeded
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.solver.ancestral import Ancestral
from unidiff.solver.base import Solver
from unidiff.solver.sample import Solution, sample
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.training.device import arithmetic

__all__ = ["EXACT", "ImageModel", "Judge", "open_model"]

EXACT = "exact:digits"
_BATCH = 250  # samples drawn together
_MOST = 2000  # held-out images that the judge looks at
_SURE = 0.05  # of held-out images, those of which the judge is least sure


class Judge:
    """An independent classifier of real images, which says whether a sample is like them, and of which class.

    A sample counts as an image of the data if the classifier is as sure of its class as of 95 of 100 held-out images.

    Args:
        data: The data, whose shipped feature network is the classifier.
    """

    def __init__(self, data: Dataset) -> None:
        self._network = feature_network(None, data.features, data.shape, "cpu")
        test = data.open("test")
        rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:_MOST].sort().values
        self.held_out = self.probabilities(test.batch(rows))
        self.threshold = float(self.held_out.max(1).values.quantile(_SURE))
        self.facts: dict[str, Any] = {
            **self._network.facts,
            "held_out": test.name,
            "count": len(rows),
            "threshold": self.threshold,
        }

    def probabilities(self, x: Tensor) -> Tensor:
        """Of each class, for images (N, *shape): (N, K) float64."""
        found = self._network.of(x.float().clamp(-1, 1).split(_BATCH)).probabilities
        assert found is not None  # a shipped network classifies
        return found

    def recognised(self, x: Tensor) -> Tensor:
        """Whether each image is like the data: (N,) booleans."""
        return self.probabilities(x).max(1).values >= self.threshold

    def classes(self, x: Tensor) -> Tensor:
        """The most probable class of each image, (N,)."""
        return self.probabilities(x).argmax(1)

    def histogram(self, x: Tensor) -> ClassHistogram:
        """How often each class occurs, beside held-out images."""
        return class_histogram(self.probabilities(x), self.held_out)


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A generative model of images with its data.

    Attributes:
        name: What it was named by: a run directory, a shipped model, or "exact:digits".
        denoiser: The model.
        data: The data that it has learned.
        run: The run; None of the exact model.
    """

    name: str
    denoiser: Denoiser
    data: Dataset
    run: GenerationRun | None = None

    @property
    def process(self) -> Process:
        """The forward process."""
        return self.denoiser.process

    @cached_property
    def source(self) -> OpenDataset:
        """The training data, opened."""
        return self.data.open()

    @cached_property
    def judge(self) -> Judge:
        """The classifier of such images."""
        return Judge(self.data.images)

    def chosen(self, count: int, seed: int) -> Tensor:
        """Rows of the training data, in random order: (count,), or all if there are fewer."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.source), generator=generator)[:count]

    def images(self, rows: Tensor) -> Tensor:
        """Training data as the model sees them, (N, *shape)."""
        return self.source.batch(rows)

    def own_conditions(self, rows: Tensor) -> dict[str, Tensor]:
        """The conditions that these training data have; none of an unconditional model."""
        if self.run is None or self.run.recipe.conditions() is None:
            return {}
        return self.run.own_conditions(self.source, rows).cond

    def conditions(self, count: int) -> dict[str, Tensor]:
        """Conditions of samples: all classes in turn, or test images; none of an unconditional model."""
        return {} if self.run is None else self.run.conditioned(count).in_turn(count)

    def arithmetic(self) -> AbstractContextManager[object]:
        """The number format of the network."""
        return nullcontext() if self.run is None else arithmetic(self.run.precision, torch.device("cpu"))

    def grid(self, steps: int) -> Grid:
        """The default grid of the process, with this many steps."""
        return default_grid(self.process, steps)

    def draw(
        self,
        count: int,
        steps: int,
        solver: Solver | None = None,
        *,
        seed: int = 0,
        keep: int = 0,
        denoiser: Denoiser | None = None,
        cond: Mapping[str, Tensor] | None = None,
    ) -> Solution:
        """Draw samples, in pixels that are decoded, by ancestral sampling unless another solver is named.

        Args:
            count: Number of samples.
            steps: Steps of the default grid.
            solver: The method.
            seed: Seed of the first sample; sample i has seed + i.
            keep: States to keep; see `unidiff.sample`.
            denoiser: A guided model in place of the plain one.
            cond: Conditions; those of `conditions` by default.
        """
        cond = self.conditions(count) if cond is None else cond
        seeds = range(seed, seed + count)
        with self.arithmetic():
            solution = sample(
                denoiser or self.denoiser,
                solver or Ancestral(),
                self.grid(steps),
                self.data.shape,
                seeds,
                batch=_BATCH,
                keep=keep,
                **cond,
            )
        x = torch.cat([self.data.decode(part) for part in solution.x.split(_BATCH)])
        return Solution(x, solution.times, solution.nfe, solution.path)

    @torch.no_grad()
    def denoised(self, u: Tensor, t: float, steps: int, seeds: range, **cond: Tensor) -> Tensor:
        """Images at the end of ancestral chains that begin in states u at time t; decoded."""
        process = self.process
        times = torch.linspace(t, process.t_min, steps, dtype=torch.float64).tolist()
        with self.arithmetic():
            *_, last = Ancestral().trajectory(self.denoiser, u, [*times, 0.0], Seeded(seeds), **cond)
        return self.data.decode(process.basis.inverse(last.u).float())

    def judge_facts(self) -> dict[str, Any] | None:
        """The classifier that has judged; None if none was asked."""
        return self.judge.facts if "judge" in vars(self) else None

    def facts(self) -> dict[str, Any]:
        """Where its numbers are from."""
        source = self.source
        facts: dict[str, Any] = {
            "name": self.name,
            "process": repr(self.process),
            "data": source.name,
            "checksum": source.checksum,
            "stand_in": source.stand_in,
        }
        if self.run is not None:
            facts |= {"digest": self.run.digest, "step": self.run.step}
        return facts


def open_model(name: str | Path) -> ImageModel:
    """The model of this name, on the CPU.

    Args:
        name: A run directory, or "exact:digits": the closed-form optimum for the digits of scikit-learn.

    Raises:
        UnidiffError: If it is not a generative model of images.
    """
    if str(name) == EXACT:
        data = Digits()
        source = data.open()
        return ImageModel(EXACT, Empirical(DDPM(500), source.batch(torch.arange(len(source)))), data)
    run = load_generation(name, device="cpu")
    data = run.recipe.data
    if len(data.decoded_shape) != 3:
        raise RunError(f"{name}: a run of images is needed, got samples of shape {data.decoded_shape}.")
    return ImageModel(str(name), run.denoiser, data, run)
