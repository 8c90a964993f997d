"""Training a classifier of noisy states, for classifier guidance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from unidiff.backbone.encoder import Encoder
from unidiff.classifier import NeuralClassifier
from unidiff.conditioning.labels import Labels
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, RecipeError, require_whole
from unidiff.noise import Seeded
from unidiff.noise_condition import NoiseCondition, Timestep
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.objective.times import TimeSampling, UniformTimes
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.read import inside
from unidiff.renamed import renamed
from unidiff.run.execute import Session, TrainingTask
from unidiff.run.load import load
from unidiff.run.records import Report
from unidiff.training.settings import Training

__all__ = ["ClassifierReport", "ClassifierTask", "load_classifier"]

_TESTED, _BATCH = 1000, 100  # samples of the test split, and how many are looked at together


@dataclass(frozen=True)
class ClassifierReport(Report):
    """The accuracy on the test split, by noise level."""

    accuracy: dict[str, float]

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        return {"accuracy": ", ".join(f"{value:.1%} at t = {t}" for t, value in self.accuracy.items())}


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True)
class ClassifierTask(TrainingTask[NeuralClassifier]):
    """Train a classifier. Its parameters are the top-level keys of the recipe of a classifier.

    Args:
        data: What to learn from; data with labels.
        process: How data become noise: that of the model which is to be guided.
        classifier: The network, not built yet. It gets its `classes`, as many as the data have.
        times: How training times are drawn.
        training: How it is trained.
        noise_condition: How the noise level is passed to the network.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
    """

    data: Dataset
    process: Process
    classifier: Blueprint[Encoder]
    times: TimeSampling = field(default_factory=UniformTimes)
    training: Training
    noise_condition: NoiseCondition = field(default_factory=Timestep)
    seed: int = 0
    smaller_recipe: str | None = None

    key: ClassVar[str] = "classifier"
    noun: ClassVar[str] = "the training of a classifier"

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        self.times.check(self.process)
        self.noise_condition.check(self.process)
        try:
            modes, shape = self.process.basis.shape, self.data.shape
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        if modes and modes != shape[-len(modes) :]:
            problem = f"{list(modes)} was given; the samples of {self.data} have shape {list(shape)}."
            raise ParameterError("process.shape", f"{problem} Write {list(shape[-len(modes) :])}.")
        try:
            given = self.classifier.arguments
            needed = self.conditioning.network(self.data, given)
        except ParameterError as error:
            raise ParameterError(error.parameter.replace("backbone", "classifier"), error.problem) from error
        object.__setattr__(self, "classifier", Blueprint(self.classifier.kind, {**given, **needed}))
        with inside("classifier", self.classifier):
            try:
                self.count_weights()
            except ParameterError as error:
                if error.parameter != "shape":
                    raise
                raise ParameterError("classifier", f"it cannot take the samples of {self.data}: {error}") from error

    @property
    def conditioning(self) -> Labels:
        """The labels, all of them: they are what is to be found out."""
        return Labels(dropout=0.0)

    def conditions(self) -> Labels:
        """See `TrainingTask.conditions`."""
        return self.conditioning

    def loss(self) -> CrossEntropy:
        """The cross entropy; see `TrainingTask.loss`."""
        return CrossEntropy(times=self.times)

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        found: int | None = self.classifier.arguments.get("classes")
        return found

    def model(self, measured: Mapping[str, Tensor]) -> NeuralClassifier:
        """The classifier with fresh weights, of the process as fitted to the data; see `TrainingTask.model`."""
        process = self.process.with_measured(measured) if self.measures else self.process
        return NeuralClassifier(process, self.classifier.build(shape=self.data.shape), self.noise_condition)

    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""
        return self.classifier.count(shape=self.data.shape)

    @property
    def measures(self) -> bool:
        """Whether the process measures the data."""
        return self.process.measures

    def measure(self, source: OpenDataset) -> Mapping[str, Tensor]:
        """What the process measures of the data, all read once."""
        return self.process.fit(source.all_batches()).measured()

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        self.conditioning.check(source, self.classes)
        self.data.look("test")  # measured on at the end, which is better found missing now

    def report(self, model: NeuralClassifier, session: Session) -> ClassifierReport:
        """The accuracy on the test split; see `TrainingTask.report`."""
        return ClassifierReport(*session.trained(), self._accuracy(model))

    def _accuracy(self, classifier: NeuralClassifier) -> dict[str, float]:
        process, test = classifier.process, self.data.open("test")
        assert test.labels is not None
        u0 = process.basis.forward(test.batch(torch.arange(min(_TESTED, len(test)))))
        label, device = test.labels[: len(u0)], next(classifier.parameters()).device
        eps = Seeded([self.seed])(u0[None])[0]
        accuracy = {}
        for t in (process.t_min, 0.1, 0.25, 0.5, 0.75):
            level = process.level(t, u0)
            with torch.no_grad():
                u = process.perturb(u0, eps, level).to(u0.dtype).split(_BATCH)
                found = torch.cat([classifier(part.to(device), process.level(t, part.to(device))).cpu() for part in u])
            accuracy[f"{t:g}"] = round(float((found.argmax(1) == label).double().mean()), 4)
        return accuracy


def load_classifier(
    directory: str | Path,
    *,
    device: str = "auto",
    allow_imports: bool = False,
    report: Callable[[str], None] = warnings.warn,
) -> NeuralClassifier:
    """Read a trained classifier of noisy states: `unidiff.load(directory).model`, of a classifier's run only.

    Args:
        directory: The run directory of a recipe that has a `classifier`.
        device: Where it is to be: auto, cpu, cuda, cuda:1, mps.
        allow_imports: Accept classes from outside unidiff in the recipe, which runs their module's code.
        report: Receives a sentence for each damaged checkpoint that was passed over.

    Raises:
        RunError: If the directory holds no run, or one without a usable checkpoint.
        RecipeError: If the run is not that of a classifier.
    """
    run = load(directory, device=device, allow_imports=allow_imports, report=report)
    if run.recipe.key != ClassifierTask.key:
        raise RecipeError(f"{directory}: this run is {run.recipe.noun}, not of a classifier.")
    return cast(NeuralClassifier, run.model)
