"""Training a model that draws samples: which parts, and a check that they fit before any data is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from unidiff import plot
from unidiff.backbone.base import Backbone
from unidiff.conditioning.base import Conditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import DataError, ParameterError, require_whole
from unidiff.grid import Uniform
from unidiff.noise_condition import NoiseCondition
from unidiff.objective.base import Objective
from unidiff.objective.denoising import Denoising
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.read import inside
from unidiff.renamed import renamed
from unidiff.run.directory import RunDirectory
from unidiff.run.execute import Session, TrainingTask
from unidiff.run.load import draw, load
from unidiff.run.records import Report
from unidiff.run.task import Run
from unidiff.sampling import Sampling
from unidiff.solver.ddim import DDIM
from unidiff.solver.sample import Solution
from unidiff.tasks.generation_report import caption, examples, report_generation
from unidiff.training.settings import Training

__all__ = ["Generation", "GenerationRun", "load_generation"]

# A cheap look at the model in training: any process, a fraction of the cost of a training interval.
_PREVIEW = Sampling(DDIM(), Uniform(25), count=16)


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True)
class Generation(TrainingTask[NeuralDenoiser]):
    """Train a model that draws samples. Its parameters are the top-level keys of a recipe file.

    Args:
        data: What to learn from.
        process: How data become noise.
        parameterization: What the network predicts.
        backbone: The network, not built yet; `recipe.backbone.build(shape=recipe.data.shape)` makes it.
        conditioning: What the network is told of the data, such as Labels or SuperResolution; null for an unconditional
            model. It gives the network its `classes` or `image`.
        objective: What training minimises.
        training: How it is trained.
        sampling: How samples are drawn.
        noise_condition: How the noise level is passed to the network; null for the parameterization's own.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    process: Process
    parameterization: Parameterization
    backbone: Blueprint[Backbone]
    conditioning: Conditioning | None = None
    objective: Objective = field(default_factory=Denoising)
    training: Training
    sampling: Sampling = field(default_factory=Sampling)
    noise_condition: NoiseCondition | None = None
    seed: int = 0
    smaller_recipe: str | None = None

    key: ClassVar[str] = "backbone"
    noun: ClassVar[str] = "the training of a model that draws samples"

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        if self.noise_condition is None:
            object.__setattr__(self, "noise_condition", self.parameterization.noise_condition(self.process))
        for part in ("parameterization", "objective", "noise_condition", "sampling"):
            check = getattr(getattr(self, part), "check", None)
            if check is not None:
                with inside(part, getattr(self, part)):
                    check(self.process)
        with inside("training", self.training):
            self.training.check(self.objective)
        try:
            _ = self.data.shape  # an array file is looked at here, and may not be what it should
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        modes, shape = self.process.basis.shape, self.data.shape
        if modes and modes != shape[-len(modes) :]:
            problem = f"{list(modes)} was given; the samples of {self.data} have shape {list(shape)}."
            raise ParameterError("process.shape", f"{problem} Write {list(shape[-len(modes) :])}.")
        self._condition()
        self._check_variance()
        with inside("backbone", self.backbone):
            try:
                self.count_weights()
            except ParameterError as error:
                if error.parameter != "shape":
                    raise
                raise ParameterError("backbone", f"it cannot take the samples of {self.data}: {error}") from error
            except (ValueError, TypeError, RuntimeError) as error:
                raise ParameterError("backbone", f"{self.backbone} cannot be made: {error}") from error

    def _condition(self) -> None:
        """Give the network the arguments by which it knows its conditions, so that the saved recipe has them."""
        given = self.backbone.arguments
        needed = {} if self.conditioning is None else self.conditioning.network(self.data, given)
        if given.get("classes") is not None and "classes" not in needed:
            problem = "nothing would tell the network which class a sample has. Add `conditioning: labels`."
            raise ParameterError("backbone.classes", problem)
        if given.get("image") is not None and "image" not in needed:
            problem = "nothing would show the network an image. Add a `conditioning` that does, or leave it out."
            raise ParameterError("backbone.image", problem)
        object.__setattr__(self, "backbone", Blueprint(self.backbone.kind, {**given, **needed}))

    def _check_variance(self) -> None:
        """Refuse a variance that the network predicts and nothing trains, or the other way round."""
        learned = bool(self.backbone.arguments.get("learned_variance"))
        if learned and not self.objective.learns_variance:
            problem = f"{type(self.objective).__name__} would not train it. Write `objective: hybrid`, or leave it out."
            raise ParameterError("backbone.learned_variance", problem)
        if self.objective.learns_variance and not learned:
            problem = "it trains a variance, which the network does not predict. Write `learned_variance: true` there."
            raise ParameterError("objective", problem)

    @property
    def classes(self) -> int | None:
        """Number of classes that the model can be asked for; None for an unconditional one."""
        found: int | None = self.backbone.arguments.get("classes")
        return found

    def model(self, measured: Mapping[str, Tensor]) -> NeuralDenoiser:
        """The model with fresh weights, of the process as fitted to the data; see `TrainingTask.model`."""
        process = self.process.with_measured(measured) if self.measures else self.process
        network = self.backbone.build(shape=self.data.shape)
        return NeuralDenoiser(process, self.parameterization, network, self.noise_condition)

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return self.backbone.count(shape=self.data.shape)

    def loss(self) -> Objective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective

    def conditions(self) -> Conditioning | None:
        """See `TrainingTask.conditions`."""
        return self.conditioning

    @property
    def measures(self) -> bool:
        """Whether the process measures the data."""
        return self.process.measures

    def measure(self, source: OpenDataset) -> Mapping[str, Tensor]:
        """What the process measures of the data, all read once."""
        return self.process.fit(source.all_batches()).measured()

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        if self.conditioning is not None:
            self.conditioning.check(source, self.classes)
        examples(self, 1)  # they may come from a test split, which is better found missing now

    def preview(self, average: NeuralDenoiser, session: Session, path: Path, title: str) -> None:
        """A few samples; see `TrainingTask.preview`."""
        cond = examples(self, _PREVIEW.count).cond
        x = draw(average, _PREVIEW, self.data, session.precision, **cond).x
        plot.save_samples(x, path, caption(title, _PREVIEW, self.process, session.source))

    def report(self, model: NeuralDenoiser, session: Session) -> Report:
        """Samples, some of them on their way from noise, and errors; see `TrainingTask.report`."""
        return report_generation(self, model, session)

    def read_back(self, directory: Path, model: NeuralDenoiser, step: int, precision: torch.dtype) -> GenerationRun:
        """A run that can be sampled from; see `TrainingTask.read_back`."""
        return GenerationRun(directory, self, RunDirectory(directory).read_manifest(), model, step, precision)


@dataclass(frozen=True)
class GenerationRun(Run):
    """A trained model that draws samples, with everything that made it; see `Run`."""

    recipe: Generation
    model: NeuralDenoiser

    @property
    def denoiser(self) -> NeuralDenoiser:
        """The model."""
        return self.model

    def sample(
        self,
        sampling: Sampling | None = None,
        *,
        keep: int = 0,
        progress: Callable[[int, int], None] | None = None,
        **cond: Tensor,
    ) -> Solution:
        """Draw samples, by default as the recipe says; see `Run.sample`."""
        chosen = sampling or self.recipe.sampling
        return draw(self.model, chosen, self.recipe.data, self.precision, keep=keep, progress=progress, **cond)


def load_generation(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> GenerationRun:
    """Read a run that samples can be drawn from; see `unidiff.load`.

    Raises:
        RecipeError: If the run is of another kind.
    """
    run = load(directory, overrides, device=device, allow_imports=allow_imports, report=report)
    _ = run.denoiser
    return cast(GenerationRun, run)
