"""The model of images that a figure is drawn with: a trained run, or the closed-form optimum for the digits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
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
from unidiff.evaluation.memorization import nearest
from unidiff.exact import Empirical
from unidiff.grid import Grid, default_grid
from unidiff.noise import Seeded, generator_of
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.solver.ancestral import Ancestral
from unidiff.solver.base import Solver, State
from unidiff.solver.dpm import DPMSolver
from unidiff.solver.sample import Solution, sample
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.training.device import arithmetic

__all__ = ["EXACT", "ImageModel", "Judge", "open_model"]

EXACT = "exact:digits"
_BATCH = 250  # samples drawn together
_MOST = 1000  # held-out images that the judge looks at
_UNUSUAL = 0.01  # the share of held-out images beyond its limits


class Judge:
    """Says whether an image is like the data, and of which class: by real images only, without the model.

    An image counts if a classifier is as sure of its class as of 99 of 100 held-out images, and if a training image is
    as near to it as to 99 of 100 of them: a classifier alone is sure of much that it has never seen.

    Args:
        data: The data, whose shipped feature network is the classifier.

    Attributes:
        held_out: Held-out images, (M, *shape).
        features_of_held_out: Their features, (M, F).
        facts: What results say of it.
    """

    def __init__(self, data: Dataset) -> None:
        self._network = feature_network(None, data.features, data.shape, "cpu")
        self._train, test = data.open(), data.open("test")
        rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:_MOST].sort().values
        self.held_out = test.batch(rows)
        self.features_of_held_out, self._probabilities = self._look(self.held_out)
        self._least = float(self._probabilities.max(1).values.quantile(_UNUSUAL))
        self._most = float(self.distance(self.held_out).quantile(1 - _UNUSUAL))
        self.facts: dict[str, Any] = {
            **self._network.facts,
            "held_out": test.name,
            "count": len(rows),
            "least_confidence": self._least,
            "largest_distance": self._most,
        }

    def features(self, x: Tensor) -> Tensor:
        """Features of images (N, *shape): (N, F) float64."""
        return self._look(x)[0]

    def probabilities(self, x: Tensor) -> Tensor:
        """Of each class, for images (N, *shape): (N, K) float64."""
        return self._look(x)[1]

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self._network.of(x.float().clamp(-1, 1).split(_BATCH))
        assert features.probabilities is not None  # a shipped network classifies
        return features.values, features.probabilities

    def distance(self, x: Tensor) -> Tensor:
        """To the nearest training image, (N,)."""
        return nearest(x.float().clamp(-1, 1), self._train.all_batches()).distance

    def recognised(self, x: Tensor) -> Tensor:
        """Whether each image is like the data: (N,) booleans."""
        return (self.probabilities(x).max(1).values >= self._least) & (self.distance(x) <= self._most)

    def classes(self, x: Tensor) -> Tensor:
        """The most probable class of each image, (N,)."""
        return self.probabilities(x).argmax(1)

    def histogram(self, x: Tensor) -> ClassHistogram:
        """How often each class occurs, beside held-out images."""
        return class_histogram(self.probabilities(x), self._probabilities)


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
        """The judge of such images."""
        return Judge(self.data.images)

    def chosen(self, count: int, seed: int) -> Tensor:
        """Rows of the training data, in random order: (count,), or all if there are fewer."""
        return torch.randperm(len(self.source), generator=generator_of(seed))[:count]

    def images(self, rows: Tensor) -> Tensor:
        """Training data as the model sees them, (N, *shape)."""
        return self.source.batch(rows)

    def own_conditions(self, rows: Tensor, source: OpenDataset | None = None) -> dict[str, Tensor]:
        """The conditions that these training data, or data of `source`, have; none of an unconditional model."""
        if self.run is None or self.run.recipe.conditions() is None:
            return {}
        return self.run.own_conditions(source or self.source, rows).cond

    def conditions(self, count: int) -> dict[str, Tensor]:
        """Conditions of samples: all classes in turn, or test images; none of an unconditional model."""
        return {} if self.run is None else self.run.conditioned(count).in_turn(count)

    def arithmetic(self) -> AbstractContextManager[object]:
        """The number format of the network."""
        return nullcontext() if self.run is None else arithmetic(self.run.precision, torch.device("cpu"))

    @staticmethod
    def sampler(quick: bool) -> tuple[Solver, int]:
        """A stochastic solver and its number of steps: ancestral sampling, or a method of second order in few steps."""
        return (DPMSolver(2, eta=1.0), 30) if quick else (Ancestral(), 100)

    def draw(
        self,
        count: int,
        solver: Solver,
        grid: Grid | int,
        *,
        seed: int = 0,
        keep: int = 0,
        denoiser: Denoiser | None = None,
        cond: Mapping[str, Tensor] | None = None,
    ) -> Solution:
        """Draw samples in pixels, decoded.

        Args:
            count: Number of samples.
            solver: The method.
            grid: The times, or the number of steps of the default grid.
            seed: Seed of the first sample; sample i has seed + i.
            keep: States to keep, decoded; see `unidiff.sample`.
            denoiser: A guided model in place of the plain one.
            cond: Conditions; those of `conditions` by default.
        """
        options: dict[str, Any] = dict(self.conditions(count) if cond is None else cond)
        grid = default_grid(self.process, grid) if isinstance(grid, int) else grid
        seeds = range(seed, seed + count)
        shape, model = self.data.shape, denoiser or self.denoiser
        with self.arithmetic():
            solution = sample(model, solver, grid, shape, seeds, batch=_BATCH, keep=keep, **options)
        path = tuple(State(state.t, self.data.decode(state.u)) for state in solution.path)
        return replace(solution, x=torch.cat([self.data.decode(part) for part in solution.x.split(_BATCH)]), path=path)

    @torch.no_grad()
    def denoised(self, u: Tensor, t: float, quick: bool, seeds: range, **cond: Tensor) -> Tensor:
        """Images at the end of stochastic chains that begin in states u at time t, (N, *modes); decoded."""
        process, (solver, steps) = self.process, self.sampler(quick)
        times, least = default_grid(process, steps).times(process)[:-1], process.t_min
        times = least + (times - least) * ((t - least) / (1 - least))
        with self.arithmetic():
            *_, last = solver.trajectory(self.denoiser, u, [*times.tolist(), 0.0], Seeded(seeds), **cond)
        return self.data.decode(process.basis.inverse(last.u).float())

    def require(self, needs: Collection[str]) -> None:
        """Raise a RunError unless the model is of the kind that a figure needs; see `Figure.needs`."""
        if "judge" in needs:
            images = self.data.images
            if not images.features:
                problem = f"{self.name}: there is no shipped classifier of such images, of shape {tuple(images.shape)}"
                raise RunError(f"{problem}. Name a run of digits, MNIST or photographs.")
        if "classes" in needs:
            conditioning = None if self.run is None else self.run.recipe.conditions()
            if conditioning is None or conditioning.names != ("label",) or not conditioning.dropout:
                problem = f"{self.name}: guidance needs a model that is conditioned on classes, with dropout"
                raise RunError(f"{problem}. `unidiff run ddpm_digits_classes` trains one.")
        if "likelihood" in needs and self.data.coded:
            problem = f"{self.name} is a latent model, whose density is not the likelihood of images"
            raise RunError(f"{problem}. Name a run of pixels.")

    def judge_facts(self) -> dict[str, Any] | None:
        """What the judge is; None if none was asked."""
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


def open_model(name: str | Path, report: Callable[[str], None] = warnings.warn) -> ImageModel:
    """The model of this name, on the CPU.

    Args:
        name: A run directory, shipped:NAME, or "exact:digits": the closed-form optimum for the digits of scikit-learn.
        report: Receives a sentence for each damaged checkpoint that is skipped.

    Raises:
        UnidiffError: If it is not a generative model of images.
    """
    if str(name) == EXACT:
        source = Digits().open()
        return ImageModel(EXACT, Empirical(DDPM(500), source.batch(torch.arange(len(source)))), Digits())
    run = load_generation(name, device="cpu", report=report)
    data = run.recipe.data
    if len(data.decoded_shape) != 3:
        raise RunError(f"{name}: a run of images is needed, got samples of shape {data.decoded_shape}.")
    return ImageModel(str(name), run.denoiser, data, run)
