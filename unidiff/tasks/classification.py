"""Training a classifier of noisy states, for classifier guidance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import torch
from typing_extensions import Unpack

from unidiff.arguments import plain_arguments
from unidiff.backbone.encoder import Encoder
from unidiff.classifier import NeuralClassifier
from unidiff.condition.base import Condition
from unidiff.condition.vector import Label
from unidiff.conditioning.labels import Labels
from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import Denoiser
from unidiff.errors import RecipeError
from unidiff.guidance.classifier import ClassifierGuidance
from unidiff.noise_condition import NoiseCondition, Timestep
from unidiff.noisy_network import NoisyNetwork
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.objective.times import TimeSampling, UniformTimes
from unidiff.process.base import Process
from unidiff.recipe.blueprint import Blueprint
from unidiff.renamed import renamed
from unidiff.run.execute import Session
from unidiff.run.load import LoadOptions, Run, load
from unidiff.run.records import Report
from unidiff.tasks.guide import TESTED, GuideRun, GuideTask
from unidiff.training.settings import Training

__all__ = ["ClassifierReport", "ClassifierRun", "ClassifierTask", "classifier_run", "load_classifier"]


@dataclass(frozen=True)
class ClassifierReport(Report):
    """The accuracy on the test split, by noise level."""

    accuracy: dict[str, float]

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        return {"accuracy": ", ".join(f"{value:.1%} at t = {t}" for t, value in self.accuracy.items())}


@dataclass(frozen=True, repr=False)
class ClassifierRun(GuideRun):
    """A trained classifier with everything that made it; see `Run`."""

    model: NeuralClassifier

    @property
    def asked(self) -> tuple[Condition, ...]:
        """The classes."""
        return (Label(self.model.classes, name=self.model.predicts),)

    def guide(self, model: Denoiser, scale: float) -> ClassifierGuidance:
        """See `GuideRun.guide`."""
        return ClassifierGuidance(model, self.model, scale)


@renamed(lighter="smaller_recipe")
@dataclass(frozen=True, kw_only=True, repr=False)
class ClassifierTask(GuideTask[NeuralClassifier, Encoder]):
    """Train a classifier. Its parameters are the top-level keys of the recipe of a classifier.

    Args:
        data: What to learn from; data with labels.
        process: How data become noise: the process of the model to be guided.
        classifier: The network, not built yet; it gets the number of `classes` from the data.
        times: How training times are drawn.
        training: How it is trained.
        noise_condition: How the noise level is passed to the network.
        seed: Seed of the weights and of the training noise, at least 0.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
        start: The run, or the folder saved by diffusers, whose weights training begins with (of a run the averaged
            ones); null for fresh weights.
        train: Names of the modules or parameters to train, such as `up.0` or `*.norm*`; the others are frozen. Null
            trains all.
    """

    data: Dataset
    process: Process
    classifier: Blueprint[Encoder]
    times: TimeSampling = field(default_factory=UniformTimes)
    training: Training
    noise_condition: NoiseCondition = field(default_factory=Timestep)
    seed: int = 0
    smaller_recipe: str | None = None
    start: str | None = None
    train: tuple[str, ...] | None = None

    key: ClassVar[str] = "classifier"
    noun: ClassVar[str] = "the training of a classifier"
    model_class: ClassVar[type[NoisyNetwork]] = NeuralClassifier
    run_class: ClassVar[type[Run]] = ClassifierRun

    def conditions(self) -> Labels:
        """The labels, which are predicted, of every sample; see `TrainingTask.conditions`."""
        return Labels(dropout=0.0)

    def loss(self) -> CrossEntropy:
        """The cross entropy; see `TrainingTask.loss`."""
        return CrossEntropy(times=self.times)

    def check_data(self, source: OpenDataset) -> None:
        """See `TrainingTask.check_data`."""
        super().check_data(source)
        self.data.look("test")  # evaluated on at the end: a missing split is reported now

    def report(self, model: NeuralClassifier, session: Session) -> ClassifierReport:
        """The accuracy on the test split, by time; see `TrainingTask.report`."""
        test = self.data.open("test")
        x, labels = test.examples(torch.arange(min(TESTED, len(test))))
        assert labels is not None
        accuracy = {}
        for t, states in self.noisy(x, model, session):
            with torch.no_grad():
                logits = torch.cat([model(u, level).cpu() for u, level in states])
            accuracy[t] = round(float((logits.argmax(1) == labels).double().mean()), 4)
        return ClassifierReport(*session.trained(), accuracy)


def classifier_run(directory: str | Path, **options: Unpack[LoadOptions]) -> Run:
    """Read the run of a classifier; see `load_classifier`."""
    run = load(directory, **options)
    if run.recipe.key != ClassifierTask.key:
        raise RecipeError(f"{directory}: this run is {run.recipe.noun}, not of a classifier.")
    return run


@plain_arguments
def load_classifier(directory: str | Path, **options: Unpack[LoadOptions]) -> NeuralClassifier:
    """Read the classifier of a run: `unidiff.load(directory).model`, of a classifier's run only.

    Args:
        directory: The run directory of a recipe that has a `classifier`.
        **options: `device`, `allow_imports` and `report`; see `unidiff.load`.

    Raises:
        RunError: If there is no run, or it has no usable checkpoint.
        RecipeError: If the run is not that of a classifier.
    """
    return cast(NeuralClassifier, classifier_run(directory, **options).model)
