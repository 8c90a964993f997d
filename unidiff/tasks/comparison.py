"""Comparing solvers, on an exact model or on trained runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unidiff import plot
from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.comparison import Comparison
from unidiff.grid import Grid, Tapered
from unidiff.process.base import Process
from unidiff.run.directory import RunDirectory
from unidiff.run.environment import environment
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.task import Reporter
from unidiff.solver.base import Solver
from unidiff.solver.spec import solver_specs
from unidiff.tasks.comparison_models import check_recipe, compare_recipe
from unidiff.tasks.sample_conditions import SampleConditions
from unidiff.text import count_of
from unidiff.words import in_words

__all__ = ["RUN_SOLVERS", "SolverComparison"]

RUN_SOLVERS = ("ddim", "ancestral", "exponentialadams")  # that runs are compared under if none are chosen


@dataclass(frozen=True, kw_only=True)
class ComparisonOutcome(ResultsOutcome):
    """What was computed and written, with the comparison itself."""

    comparison: Comparison


@dataclass(frozen=True, kw_only=True, repr=False)
class SolverComparison(ResultsTask):
    """Compare solvers. Its parameters are the top-level keys of the recipe.

    Either `runs`, or `data` and `process`: then the model is exact and nothing is trained.

    Args:
        solvers: Solvers, each as a component or as a short text: ddim, ddim:0.5, ddim@uniform. The name may be cut
            short; the number sets `order` if the solver has one, else its first numeric parameter.
        nfe: Numbers of evaluations, each at least 1; not used where there are `steps`.
        steps: Numbers of steps of the grids, each at least 1, in place of numbers of evaluations, of which a step of
            some solvers takes several.
        data: Data whose density is a mixture of Gaussians, such as Ring.
        process: The process of the exact model.
        runs: Directories of trained runs, all of the same data.
        conditions: What the samples of the runs are conditioned on, and what guides them; null for all classes in turn,
            or test images, of models that are conditioned.
        grid: Grid of the solvers that name none; its own `steps` are replaced.
        count: Samples of each solver at each number of evaluations, at least 20.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
    """

    solvers: tuple[Solver | str, ...]
    nfe: tuple[int, ...] = (5, 10, 20, 50, 100)
    steps: tuple[int, ...] = ()
    data: Dataset | None = None
    process: Process | None = None
    runs: tuple[Path, ...] = ()
    conditions: SampleConditions | None = None
    grid: Grid | None = None
    count: int = 500
    batch: int = 500
    seed: int = 0

    key: ClassVar[str] = "solvers"
    noun: ClassVar[str] = "a comparison of solvers"
    results: ClassVar[str] = "comparison"
    files: ClassVar[tuple[str, ...]] = "compare.csv", "errors.png", "samples.png", "compare.json"

    def __post_init__(self) -> None:
        require(len(self.solvers) > 0, "solvers", [], "a list of at least one solver")
        solver_specs(self.solvers, self.grid or Tapered())
        require(len(self.nfe) > 0, "nfe", [], "a list of at least one integer")
        for nfe in self.nfe:
            require_whole("nfe", nfe, 1, 1_000_000)
        for steps in self.steps:
            require_whole("steps", steps, 1, 1_000_000)
        if self.steps and self.nfe != SolverComparison.nfe:
            raise ParameterError("steps", "`nfe` is given too. Leave one of them out.")
        require_whole("count", self.count, 20, 10_000_000)
        require_whole("batch", self.batch, 1, 10_000_000)
        require_whole("seed", self.seed, 0, 2**62)
        if self.conditions is not None and not self.runs:
            raise ParameterError("conditions", "samples of an exact model have none. Leave it out, or compare `runs`.")
        if self.runs:
            names, once = [str(run) for run in self.runs], {os.path.realpath(run) for run in self.runs}
            require(len(once) == len(names), "runs", names, "a list that names each run once")
            for name in ("data", "process"):
                if getattr(self, name) is not None:
                    raise ParameterError(name, "a trained run has its own. Leave this out, or leave `runs` out.")
        elif self.data is None or self.process is None:
            missing = "data" if self.data is None else "process"
            problem = "it is missing. Give `data` and `process` of an exact model, or the `runs` to compare."
            raise ParameterError(missing, problem)
        elif self.data.mixture is None:
            problem = f"the density of {self.data!r} is not a mixture of Gaussians"
            raise ParameterError("data", f"{problem}. Use Ring, or a trained model in `runs`.")

    def compute(
        self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool
    ) -> ComparisonOutcome:
        """See `ResultsTask.compute`."""
        comparison, facts = compare_recipe(self, reporter, device=str(device), allow_imports=allow_imports)
        chosen = (self.conditions or SampleConditions()).facts() if self.runs else {}
        return self.write(comparison, {**facts, **chosen}, directory)

    def check_named(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
        """The runs, their data and conditions, and the solvers on their processes; see `Task.check_named`."""
        check_recipe(self, reporter, device=str(device), allow_imports=allow_imports)

    @property
    def nfes(self) -> tuple[int, ...]:
        """The numbers of evaluations; none where numbers of steps are given."""
        return () if self.steps else self.nfe

    @property
    def builds_on(self) -> tuple[Path, ...]:
        """The runs, and those that guide them; see `Task.builds_on`."""
        chosen = self.conditions or SampleConditions()
        return (*self.runs, *(path for path in (chosen.classifier, chosen.weaker) if path is not None))

    def write(self, comparison: Comparison, facts: dict[str, Any], directory: Path) -> ComparisonOutcome:
        """Write what `compare_recipe` returned: table, summary and two figures; see `ResultsTask.written`."""
        content = {"recipe": self.to_dict(), **facts, **comparison.to_dict(), "environment": environment()}
        errors, samples = self.files[1:3]
        table = comparison.to_csv(RunDirectory(self.runs[0]).name if self.runs else "exact")
        model = ", ".join(str(run) for run in self.runs)
        model = model or f"Exact model of {in_words(self.data)} with {in_words(self.process)}"
        caption = f"{model}. {count_of(comparison.count, 'sample')}, seeds from {self.seed}."
        caption += f" Grid, unless named: {plot.grid_of(comparison.lines)}."
        caption += f"\n{facts['stand_in']}" if facts.get("stand_in") else ""
        with self.written(directory, content) as folder:
            (folder / self.files[0]).write_text(table)
            plot.save_curves(plot.comparison_panels(comparison), "evaluations", folder / errors, caption)
            numbers, of = sorted(set(self.steps or self.nfe)), "steps" if self.steps else "evaluations"
            _plot_samples(numbers, of, comparison, folder / samples, caption)
        return ComparisonOutcome(directory, content, self.files, table, comparison=comparison)


def _plot_samples(budgets: list[int], of: str, comparison: Comparison, path: Path, caption: str) -> None:
    cells: list[list[tuple[Tensor, str] | None]] = []
    unit = "nfe " if of == "steps" else ""
    for line in comparison.lines:
        by_request = {budgets[-1] if row.requested is None else row.requested: row for row in line.rows}
        in_row = [(budget, by_request.get(budget)) for budget in budgets]
        cells.append(
            [None if row is None else (row.x, "" if row.nfe == n else f"{unit}{row.nfe}") for n, row in in_row]
        )
        if comparison.truth:
            truth = comparison.truth.get(line.model)
            cells[-1].append(None if truth is None else (truth, ""))
    columns = [f"{budget} {of}" for budget in budgets] + (["true flow"] if comparison.truth else [])
    plot.save_table(cells, plot.names_of(comparison.lines), columns, path, caption)
