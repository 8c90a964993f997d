"""Evaluating samples: of trained runs, of folders of images and of arrays."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from unidiff import plot
from unidiff.classifier import NeuralClassifier
from unidiff.data.base import Dataset, require_split
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.evaluate import Evaluator, feature_network
from unidiff.evaluation.network import SHIPPED, FeatureNetwork
from unidiff.evaluation.real import real_data
from unidiff.evaluation.scores import Evaluation, Scores
from unidiff.grid import Tapered
from unidiff.run.environment import environment
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.shared import Processes
from unidiff.run.task import Reporter
from unidiff.solver.base import Solver
from unidiff.solver.spec import solver_specs
from unidiff.tasks.classification import classifier_run
from unidiff.tasks.evaluation_samples import Sets, open_sets
from unidiff.tasks.sample_conditions import SampleConditions

__all__ = ["EvaluationTask"]

_SHOWN = 9  # samples of each set in each of the two columns of the figure


@dataclass(frozen=True, kw_only=True)
class EvaluationOutcome(ResultsOutcome):
    """What was computed and written, with the evaluation itself, which only the first of several processes has."""

    evaluation: Evaluation | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationTask(ResultsTask):
    """Evaluate samples. Its parameters are the top-level keys of the recipe.

    Args:
        evaluate: Run directories, folders of images and .npy files of samples, all of the same data.
        data: The real data; null for those that the runs were trained on.
        features: Network in whose features samples are compared: a shipped one ("digits", "mnist", "photos"), "pixels",
            or the run directory of a classifier; null for the shipped one of the data.
        split: Of the reference: "test" or "train".
        count: Samples drawn from each run, and taken of each folder or file at most; at least 20.
        bits: Test samples whose bits/dim are computed, by the flow and by the bound; 0 for none.
        solvers: Solvers of the runs, as in a comparison; empty for the one of each run's recipe.
        nfe: Numbers of evaluations, each at least 1; empty for the grid of each run's recipe.
        steps: Numbers of steps of the grids, each at least 1, in place of numbers of evaluations.
        conditions: What the samples of the runs are conditioned on, and what guides them; null for all classes in turn,
            or test images, of models that are conditioned.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
    """

    evaluate: tuple[Path, ...]
    data: Dataset | None = None
    features: str | None = None
    split: str = "test"
    count: int = 2000
    bits: int = 0
    solvers: tuple[Solver | str, ...] = ()
    nfe: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    conditions: SampleConditions | None = None
    batch: int = 250
    seed: int = 0

    key: ClassVar[str] = "evaluate"
    noun: ClassVar[str] = "an evaluation of samples"
    results: ClassVar[str] = "evaluation"
    files: ClassVar[tuple[str, ...]] = "evaluate.csv", "samples.png", "evaluate.json"

    def __post_init__(self) -> None:
        names = [str(path) for path in self.evaluate]
        require(len(names) > 0, "evaluate", [], "a list of at least one run, folder or file")
        once = {os.path.realpath(path) for path in self.evaluate}
        require(len(once) == len(names), "evaluate", names, "a list that names each once")
        require_split(self.split)
        solver_specs(self.solvers, Tapered())
        for nfe in self.nfe:
            require_whole("nfe", nfe, 1, 1_000_000)
        for steps in self.steps:
            require_whole("steps", steps, 1, 1_000_000)
        if self.steps and self.nfe:
            raise ParameterError("steps", "`nfe` is given too. Leave one of them out.")
        if self.solvers and not self.nfe and not self.steps:
            raise ParameterError("nfe", "it is missing. Give the numbers of evaluations of the `solvers`, or `steps`.")
        require_whole("count", self.count, 20, 10_000_000)
        require_whole("bits", self.bits, 0, 10_000_000)
        require_whole("batch", self.batch, 1, 10_000_000)
        require_whole("seed", self.seed, 0, 2**39)

    @property
    def builds_on(self) -> tuple[Path, ...]:
        """Runs and folders, and the runs that guide them or have the features; see `Task.builds_on`."""
        chosen = self.conditions or SampleConditions()
        own = () if self.features in (None, "pixels", *SHIPPED) else (Path(str(self.features)),)
        others = [path for path in (chosen.classifier, chosen.weaker) if path is not None]
        return (*(path for path in self.evaluate if Path(path).suffix != ".npy"), *own, *others)

    def check_named(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
        """The runs, their data and conditions, the solvers and the features; see `Task.check_named`."""
        sets = open_sets(self, reporter, device, allow_imports)
        self._network(sets, device, allow_imports, reporter)

    def _network(self, sets: Sets, device: torch.device, allow_imports: bool, reporter: Reporter) -> Any:
        """The features, after an error if there are none for these data."""
        chosen, network = self.features, None
        if chosen is not None and chosen not in ("pixels", *SHIPPED):
            if not os.path.isdir(chosen):
                allowed = ", ".join(map(repr, (*SHIPPED, "pixels")))
                problem = f"must be {allowed} or the run directory of a classifier, got {chosen!r}"
                raise ParameterError("features", problem)
            run = classifier_run(chosen, device=str(device), allow_imports=allow_imports, report=reporter.notice)
            network = FeatureNetwork(f"the classifier {chosen}", run.digest, cast(NeuralClassifier, run.model))
        data = sets.data.images
        return feature_network(network or chosen, data.features, data.shape, str(device))

    def compute(
        self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool
    ) -> EvaluationOutcome:
        """See `ResultsTask.compute`."""
        processes = Processes.join(str(device), reporter.notice)
        sets = open_sets(self, reporter, torch.device(processes.device), allow_imports)
        if not processes.main:
            collections.deque(sets.drawn(reporter, processes), maxlen=0)  # its share of each
            return EvaluationOutcome(directory, {})
        network = self._network(sets, device, allow_imports, reporter)
        real = real_data(sets.data, self.count, split=self.split, classes=sets.classes, seed=self.seed)
        if (stand_in := real.reference.source.stand_in) is not None:
            reporter.notice(stand_in)
        evaluator, shown = Evaluator(real, network), dict[str, Tensor]()

        def rows() -> Iterator[Scores]:
            for done, drawn in enumerate(sets.drawn(reporter, processes)):
                reporter.progress("evaluate", done, len(sets))
                shown[drawn.name] = drawn.x[: 2 * _SHOWN].clone()
                yield evaluator.scores(drawn.name, drawn.x, cost=drawn.cost, facts=drawn.facts, more=drawn.measures)
            reporter.progress("evaluate", len(sets), len(sets))

        shown["real data"] = real.floor.source.batch(real.floor.rows[: 2 * _SHOWN])
        evaluation = evaluator.evaluation(rows(), sets.notes, split=self.split)
        for note in evaluation.notes:
            reporter.notice(note)
        return self._write(evaluation, shown, directory, str(device))

    def _write(
        self, evaluation: Evaluation, shown: dict[str, Tensor], directory: Path, device: str
    ) -> EvaluationOutcome:
        content = {"recipe": self.to_dict(), "device": device, **evaluation.to_dict(), "environment": environment()}
        table, samples, _ = self.files
        reference = evaluation.facts["reference"]["data"]
        caption = f"The first of {self.count} samples, seeds from {self.seed}; reference: {reference}."
        with self.written(directory, content) as folder:
            (folder / table).write_text(evaluation.to_csv())
            cells = [[(x[:_SHOWN], ""), (x[_SHOWN:], "")] for x in shown.values()]
            plot.save_table(cells, [*shown], ["", ""], folder / samples, caption)
        return EvaluationOutcome(directory, content, self.files, evaluation.to_csv(), evaluation=evaluation)
