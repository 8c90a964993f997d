"""Training a generative model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from typing_extensions import Unpack

from unidiff import plot
from unidiff.backbone.base import Backbone
from unidiff.conditioning.base import Conditioning, Examples
from unidiff.conditioning.joint import Joint
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import ParameterError
from unidiff.grid import Uniform
from unidiff.noise_condition import NoiseCondition
from unidiff.objective.base import Objective
from unidiff.objective.denoising import Denoising
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.read import inside
from unidiff.renamed import renamed
from unidiff.run.execute import Session
from unidiff.run.load import LoadOptions, Run, draw, load
from unidiff.run.records import Report
from unidiff.solver.ddim import DDIM
from unidiff.solver.sample import Sampling, Solution
from unidiff.tasks.generation_report import caption, examples, report_generation
from unidiff.tasks.process_task import ProcessTask
from unidiff.training.settings import Training

__all__ = ["Conditioned", "Generation", "GenerationRun", "load_generation"]

# A cheap look at the model in training, of any process.
_PREVIEW = Sampling(DDIM(), Uniform(25), count=16)


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


@dataclass(frozen=True)
class GenerationRun(Run):
    """A trained generative model with everything that made it; see `Run`."""

    recipe: Generation
    model: NeuralDenoiser

    @property
    def denoiser(self) -> NeuralDenoiser:
        """The model."""
        return self.model

    def sample(self, sampling: Sampling | None = None, **options: Any) -> Solution:
        """Draw samples, by default as the recipe says; see `Run.sample`."""
        return draw(self.model, sampling or self.recipe.sampling, self.recipe.data, self.precision, **options)

    def conditioned(self, count: int) -> Conditioned:
        """With all classes in turn, or `count` test images, if the model is conditioned on any."""
        return Conditioned(self.model, examples(self.recipe, count))


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True)
class Generation(ProcessTask[NeuralDenoiser, Backbone]):
    """Train a generative model. Its parameters are the top-level keys of a recipe file.

    Args:
        data: What to learn from.
        process: How data become noise.
        parameterization: What the network predicts.
        backbone: The network, not built yet; `recipe.backbone.build(shape=recipe.data.shape)` makes it.
        conditioning: What the network is conditioned on, such as Labels or SuperResolution, or a list of several
            (`Joint`); null for an unconditional model. It sets `classes`, `image` or `conditions` of the network.
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
    conditioning: Conditioning | tuple[Conditioning, ...] | None = None
    objective: Objective = field(default_factory=Denoising)
    training: Training
    sampling: Sampling = field(default_factory=Sampling)
    noise_condition: NoiseCondition | None = None
    seed: int = 0
    smaller_recipe: str | None = None

    key: ClassVar[str] = "backbone"
    noun: ClassVar[str] = "the training of a generative model"
    run_class: ClassVar[type[Run]] = GenerationRun

    def __post_init__(self) -> None:
        if self.noise_condition is None:
            object.__setattr__(self, "noise_condition", self.parameterization.noise_condition(self.process))
        if isinstance(self.conditioning, (list, tuple)):
            with inside("conditioning", self.conditioning):
                object.__setattr__(self, "conditioning", Joint(tuple(self.conditioning)))
        for name in ("parameterization", "objective", "noise_condition", "sampling"):
            component = getattr(self, name)
            with inside(name, component):
                component.check(self.process)
        super().__post_init__()
        learned = bool(self.backbone.arguments.get("learned_variance"))
        if learned and not self.objective.learns_variance:
            problem = f"{type(self.objective).__name__} does not train it. Write `objective: hybrid`, or leave it out."
            raise ParameterError("backbone.learned_variance", problem)
        if self.objective.learns_variance and not learned:
            problem = "it trains a variance, but the backbone lacks `learned_variance: true`."
            raise ParameterError("objective", problem)

    def conditions(self) -> Conditioning | None:
        """See `TrainingTask.conditions`."""
        return cast("Conditioning | None", self.conditioning)

    def model(self, measured: Mapping[str, Tensor]) -> NeuralDenoiser:
        """The model with fresh weights; see `TrainingTask.model`."""
        process, network = self.process.with_measured(measured), self.network.build(shape=self.data.shape)
        return NeuralDenoiser(process, self.parameterization, network, self.noise_condition)

    def loss(self) -> Objective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        super().check_data(source)
        examples(self, 1)  # of the test split, perhaps: a missing one is reported now

    def preview(self, average: NeuralDenoiser, session: Session, path: Path, title: str) -> None:
        """A few samples; see `TrainingTask.preview`."""
        cond = examples(self, _PREVIEW.count).cond
        x = draw(average, _PREVIEW, self.data, session.precision, **cond).x
        plot.save_samples(x, path, caption(title, _PREVIEW, self.process, session.source))

    def report(self, model: NeuralDenoiser, session: Session) -> Report:
        """Samples, some of them on their way from noise, and errors; see `TrainingTask.report`."""
        return report_generation(self, model, session)


def load_generation(
    directory: str | Path, overrides: Sequence[str] = (), **options: Unpack[LoadOptions]
) -> GenerationRun:
    """Read the run of a generative model; see `unidiff.load`.

    Raises:
        RecipeError: If the run is of another task.
    """
    run = load(directory, overrides, **options)
    _ = run.denoiser
    return cast(GenerationRun, run)
