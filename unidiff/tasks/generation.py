"""Training a generative model: which parts, and a check that they fit before any data is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from torch import Tensor

from unidiff import plot
from unidiff.backbone.base import Backbone
from unidiff.conditioning.base import Conditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import NeuralDenoiser
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
from unidiff.run.load import draw, load
from unidiff.run.records import Report
from unidiff.run.task import Run
from unidiff.sampling import Sampling
from unidiff.solver.ddim import DDIM
from unidiff.solver.sample import Solution
from unidiff.tasks.generation_report import caption, examples, report_generation
from unidiff.tasks.process_task import ProcessTask
from unidiff.training.settings import Training

__all__ = ["Generation", "GenerationRun", "load_generation"]

# A cheap look at the model in training: any process, a fraction of the cost of a training interval.
_PREVIEW = Sampling(DDIM(), Uniform(25), count=16)


@dataclass(frozen=True)
class GenerationRun(Run):
    """A trained generative model with everything that made it; see `Run`."""

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


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True)
class Generation(ProcessTask[NeuralDenoiser]):
    """Train a generative model. Its parameters are the top-level keys of a recipe file.

    Args:
        data: What to learn from.
        process: How data become noise.
        parameterization: What the network predicts.
        backbone: The network, not built yet; `recipe.backbone.build(shape=recipe.data.shape)` makes it.
        conditioning: What the network is conditioned on, such as Labels or SuperResolution; null for an unconditional
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
    noun: ClassVar[str] = "the training of a generative model"
    run_class: ClassVar[type[Run]] = GenerationRun

    def __post_init__(self) -> None:
        if self.noise_condition is None:
            object.__setattr__(self, "noise_condition", self.parameterization.noise_condition(self.process))
        for name in ("parameterization", "objective", "noise_condition", "sampling"):
            part = getattr(self, name)
            with inside(name, part):
                part.check(self.process)
        super().__post_init__()
        self._check_variance()

    @property
    def network(self) -> Blueprint[Backbone]:
        """The network; see `ProcessTask.network`."""
        return self.backbone

    def conditions(self) -> Conditioning | None:
        """See `TrainingTask.conditions`."""
        return self.conditioning

    def conditioned(self, needed: Mapping[str, object]) -> Blueprint[Backbone]:
        """The network with the arguments of its conditioning; see `ProcessTask.conditioned`."""
        written = self.backbone.arguments
        if written.get("classes") is not None and "classes" not in needed:
            problem = "it is set, but the recipe has no label conditioning. Add `conditioning: labels`."
            raise ParameterError("backbone.classes", problem)
        if written.get("image") is not None and "image" not in needed:
            problem = "it is set, but the recipe has no image conditioning. Add a `conditioning`, or leave it out."
            raise ParameterError("backbone.image", problem)
        return super().conditioned(needed)

    def _check_variance(self) -> None:
        """Reject a learned variance that the objective does not train, and the reverse."""
        learned = bool(self.backbone.arguments.get("learned_variance"))
        if learned and not self.objective.learns_variance:
            problem = f"{type(self.objective).__name__} would not train it. Write `objective: hybrid`, or leave it out."
            raise ParameterError("backbone.learned_variance", problem)
        if self.objective.learns_variance and not learned:
            problem = "it trains a variance, but the backbone lacks `learned_variance: true`."
            raise ParameterError("objective", problem)

    def model(self, measured: Mapping[str, Tensor]) -> NeuralDenoiser:
        """The model with fresh weights; see `TrainingTask.model`."""
        return NeuralDenoiser(self.fitted(measured), self.parameterization, self.build(), self.noise_condition)

    def loss(self) -> Objective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        super().check_data(source)
        examples(self, 1)  # they may come from a test split, which is better found missing now

    def preview(self, average: NeuralDenoiser, session: Session, path: Path, title: str) -> None:
        """A few samples; see `TrainingTask.preview`."""
        cond = examples(self, _PREVIEW.count).cond
        x = draw(average, _PREVIEW, self.data, session.precision, **cond).x
        plot.save_samples(x, path, caption(title, _PREVIEW, self.process, session.source))

    def report(self, model: NeuralDenoiser, session: Session) -> Report:
        """Samples, some of them on their way from noise, and errors; see `TrainingTask.report`."""
        return report_generation(self, model, session)


def load_generation(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> GenerationRun:
    """Read the run of a generative model; see `unidiff.load`.

    Raises:
        RecipeError: If the run is of another kind.
    """
    run = load(directory, overrides, device=device, allow_imports=allow_imports, report=report)
    _ = run.denoiser
    return cast(GenerationRun, run)
