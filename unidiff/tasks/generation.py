"""Training a generative model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from typing_extensions import Self, Unpack

from unidiff import plot
from unidiff.backbone.base import Backbone
from unidiff.backbone.low_rank import LowRank
from unidiff.condition.check import check_made, check_taken, least_conditions
from unidiff.condition.network import conditions_of
from unidiff.conditioning.base import Conditioning, Examples
from unidiff.conditioning.control import controls_of
from unidiff.conditioning.joint import Joint, with_others
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import DataError, ParameterError, RecipeError
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
from unidiff.run.records import Report, TrainingOutcome
from unidiff.run.task import Options, Reporter
from unidiff.search_paths import Absent
from unidiff.solver.ddim import DDIM
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.sample import Sampling, Solution
from unidiff.tasks.additions import check_additions, with_additions
from unidiff.tasks.generation_report import caption, examples, report_generation
from unidiff.tasks.process_task import ProcessTask
from unidiff.training.device import resolve_device
from unidiff.training.settings import Training

__all__ = ["Conditioned", "Generation", "GenerationRun", "generative", "load_generation"]

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
        return self.examples.in_turn(count).cond


@dataclass(frozen=True, repr=False)
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
        solution = draw(self.model, sampling or self.recipe.sampling, self.recipe.data, self.precision, **options)
        warn_if_not_finite(solution.x)
        return solution

    def plot(self) -> Any:
        """See `Run.plot`."""
        sampling = replace(self.recipe.sampling, count=min(16, self.recipe.sampling.count))
        cond = least_conditions(self.model, sampling.count)
        with suppress(DataError):
            cond |= self.conditioned(sampling.count).in_turn(sampling.count)
        return self.sample(sampling, **cond).plot()

    def own_conditions(self, source: OpenDataset, rows: Tensor) -> Examples:
        """The conditions that these samples of opened data have themselves, none dropped.

        Raises:
            RecipeError: If the model is unconditional.
        """
        if (conditioning := self.recipe.conditions()) is None:
            raise RecipeError(f"{self.directory}: this model is unconditional. Leave the condition out.")
        return conditioning.own(source, rows, torch.Generator().manual_seed(0))

    def conditioned(self, count: int) -> Conditioned:
        """With all classes in turn, or `count` test images, if the model is conditioned on any."""
        return Conditioned(self.model, examples(self.recipe, count))


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True, repr=False)
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
        start: The run, or the folder saved by diffusers, whose weights training begins with (of a run the averaged
            ones); null for fresh weights.
        train: Names of the modules or parameters to train, such as `up.0` or `*.norm*`; the others are frozen. Null
            trains all.
        teacher: The run whose model the objective needs, as Distillation does; null if it needs none.
        low_rank: Changes of low rank that are trained in place of the weights of `start` (LoRA); null for none.
        control: What the image of a control branch is, such as Edges, or a list for several; the branches are trained
            beside the frozen network of `start` (ControlNet). Null for none.
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
    start: str | None = None
    train: tuple[str, ...] | None = None
    teacher: str | None = None
    low_rank: LowRank | None = None
    control: ImageConditioning | tuple[ImageConditioning, ...] | None = None

    key: ClassVar[str] = "backbone"
    noun: ClassVar[str] = "the training of a generative model"
    filled_in: ClassVar[tuple[str, tuple[str, ...]]] = "start", ("process", "parameterization", "backbone")
    filled_with: ClassVar[Mapping[str, str]] = MappingProxyType({"backbone": "Pretrained"})
    run_class: ClassVar[type[Run]] = GenerationRun

    def __post_init__(self) -> None:
        self.process.require_scales()
        if self.noise_condition is None:
            object.__setattr__(self, "noise_condition", self.parameterization.noise_condition(self.process))
        if isinstance(self.conditioning, (list, tuple)):
            try:
                object.__setattr__(self, "conditioning", Joint(tuple(self.conditioning)))
            except ParameterError as error:
                where = error.parameter.replace("parts", "conditioning", 1)
                raise ParameterError(where, error.problem) from error
        for name in ("parameterization", "objective", "noise_condition", "sampling"):
            component = getattr(self, name)
            with inside(name, component):
                component.check(self.process)
        check_additions(self)
        super().__post_init__()
        if self.low_rank is not None or self.control is not None:
            self.sketch()  # an error about them has their key
        if (acceleration := self.sampling.acceleration) is not None:
            with inside("sampling", self.sampling):
                acceleration.check_process(self.process)
                acceleration.check_network(self.sketch())
        if (conditions := self.conditions()) is not None:
            check_taken(conditions.made(self.data) or (), conditions_of(self.sketch()))
        with (
            inside("objective", self.objective),
            suppress(Absent),
        ):  # a run is loaded without the files it was made from
            self.objective.coupling.check_shape(self.data.shape)
        learned = bool(self.backbone.arguments.get("learned_variance"))
        if learned and not self.objective.learns_variance:
            problem = f"{type(self.objective).__name__} does not train it. Write `objective: hybrid`, or leave it out."
            raise ParameterError("backbone.learned_variance", problem)
        if self.objective.learns_variance and not learned:
            problem = "it trains a variance, but the backbone lacks `learned_variance: true`."
            raise ParameterError("objective", problem)

        if self.objective.needs_teacher != (self.teacher is not None):
            need = "needs one, the run of a model." if self.teacher is None else "needs none. Leave it out."
            raise ParameterError("teacher", f"{type(self.objective).__name__} {need}")

    def drawn_with(self, solver: str | None, steps: int | None) -> Self:
        """See `Task.drawn_with`; a solver that names no grid runs on that of the recipe."""
        return replace(self, sampling=self.sampling.drawn_with(self.process, solver, steps))

    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> TrainingOutcome | None:
        """See `TrainingTask.run`; the file of a coupling must be there before any data are read."""
        with inside("objective", self.objective):
            self.objective.coupling.check_shape(self.data.shape)
        if self.sampling.acceleration is not None:
            with inside("sampling", self.sampling):
                self.sampling.acceleration.check_device(resolve_device(options.get("device", "auto")))
        return super().run(directory, reporter, **options)

    def conditions(self) -> Conditioning | None:
        """See `TrainingTask.conditions`; those of the control branches are the last."""
        return with_others(cast("Conditioning | None", self.conditioning), controls_of(self.control))

    def model(self, measured: Mapping[str, Tensor]) -> NeuralDenoiser:
        """The model with fresh weights; see `TrainingTask.model`."""
        process, network = self.process.with_measured(measured), self._built()
        return NeuralDenoiser(process, self.parameterization, network, self.noise_condition)

    def sketch(self) -> Backbone:
        """See `TrainingTask.sketch`."""
        with torch.device("meta"):
            return self._built()

    def count_weights(self) -> int:
        """See `TrainingTask.count_weights`."""
        return sum(parameter.numel() for parameter in self.sketch().parameters())

    def _built(self) -> Backbone:
        """The network, with its changes of low rank or its control branches if there are any."""
        return with_additions(self.network.build(shape=self.data.shape), self.data, self.low_rank, self.control)

    def loss(self) -> Objective:
        """The objective; see `TrainingTask.loss`."""
        return self.objective

    def taught(self, teacher: NeuralDenoiser) -> Objective:
        """The objective with its teacher; see `TrainingTask.taught`."""
        if self.measures:
            problem = f"{self.process!r} is fitted to the data of each run, so a teacher's states are not those here."
            raise ParameterError("teacher", problem)
        objective = self.objective.with_teacher(teacher)
        student = NeuralDenoiser(self.process, self.parameterization, self.sketch(), self.noise_condition)
        try:
            objective.check_model(student)
        except ParameterError as error:
            raise ParameterError(error.parameter, f"{self.teacher}: {error.problem}") from error
        return objective

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        super().check_data(source)
        with inside("objective", self.objective):
            self.objective.coupling.check_data(source)
        cond = examples(self, 1).cond  # of the test split, perhaps: a missing one is reported now
        check_made(cond, conditions_of(self.sketch()))

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
    return generative(load(directory, overrides, **options))


def generative(run: Run) -> GenerationRun:
    """A run that generates samples, as it is.

    Raises:
        RecipeError: If it is of another task.
    """
    _ = run.denoiser
    return cast(GenerationRun, run)
