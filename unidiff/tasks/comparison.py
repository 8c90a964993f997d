"""Comparing solvers, on an exact model or on trained runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.comparison import Comparison
from unidiff.evaluation.solver_spec import solver_specs
from unidiff.grid import Grid, Tapered
from unidiff.process.base import Process
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.task import Reporter
from unidiff.solver.base import Solver
from unidiff.tasks.comparison_models import compare_recipe
from unidiff.tasks.comparison_report import FILES, write_comparison
from unidiff.tasks.conditions import Condition, usual

__all__ = ["SolverComparison"]


@dataclass(frozen=True, kw_only=True)
class ComparisonOutcome(ResultsOutcome):
    """What was computed and written, with the comparison itself."""

    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class SolverComparison(ResultsTask):
    """Compare solvers. Its parameters are the top-level keys of the recipe.

    Either `runs`, or `data` and `process`: then the model is exact and nothing is trained.

    Args:
        solvers: Solvers, each as a component or as a short text: ddim, ddim:0.5, ddim@uniform. The name may be cut
            short; the number sets `order` if the solver has one, else its first numeric parameter.
        nfe: Numbers of evaluations, each at least 1.
        data: Data whose density is a mixture of Gaussians, such as Ring.
        process: The process of the exact model.
        runs: Directories of trained runs, all of the same data.
        grid: Grid of the solvers that name none; its `steps` follow from `nfe`.
        count: Samples of each solver at each number of evaluations, at least 20.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
    """

    solvers: tuple[Solver | str, ...]
    nfe: tuple[int, ...] = (5, 10, 20, 50, 100)
    data: Dataset | None = None
    process: Process | None = None
    runs: tuple[Path, ...] = ()
    grid: Grid | None = None
    count: int = 500
    batch: int = 500
    seed: int = 0

    key: ClassVar[str] = "solvers"
    noun: ClassVar[str] = "a comparison of solvers"
    results: ClassVar[str] = "comparison"
    files: ClassVar[tuple[str, ...]] = FILES

    def __post_init__(self) -> None:
        require(len(self.solvers) > 0, "solvers", [], "a list of at least one solver")
        solver_specs(self.solvers, self.grid or Tapered())
        require(len(self.nfe) > 0, "nfe", [], "a list of at least one integer")
        for nfe in self.nfe:
            require_whole("nfe", nfe, 1, 1_000_000)
        require_whole("count", self.count, 20, 10_000_000)
        require_whole("batch", self.batch, 1, 10_000_000)
        require_whole("seed", self.seed, 0, 2**62)
        if self.runs:
            directories = {Path(run).resolve() for run in self.runs}
            require(
                len(directories) == len(self.runs),
                "runs",
                [str(run) for run in self.runs],
                "a list that names each run once",
            )
            for name in ("data", "process"):
                if getattr(self, name) is not None:
                    raise ParameterError(name, "a trained run has its own. Leave this out, or leave `runs` out.")
        elif self.data is None or self.process is None:
            missing = "data" if self.data is None else "process"
            problem = "it is missing. Give `data` and `process` of an exact model, or the `runs` to compare."
            raise ParameterError(missing, problem)
        elif self.data.mixture is None:
            problem = (
                f"the density of {self.data!r} is not a mixture of Gaussians. Use Ring, or a trained model in `runs`."
            )
            raise ParameterError("data", problem)

    def compute(
        self,
        directory: Path,
        reporter: Reporter,
        device: torch.device,
        allow_imports: bool,
        condition: Condition = usual,
        facts: Mapping[str, Any] | None = None,
    ) -> ComparisonOutcome:
        """See `ResultsTask.compute`.

        The model of each run, and the conditions of its samples, are those of `condition`, which depends on `facts`.
        """
        comparison, found = compare_recipe(
            self, reporter, device=str(device), allow_imports=allow_imports, condition=condition
        )
        for note in comparison.notes:
            reporter.notice(note)
        content = write_comparison(self, comparison, {**found, **(facts or {})}, directory)
        return ComparisonOutcome(directory, content, self.files, comparison.to_csv(), comparison=comparison)
