"""The recipe of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, RecipeError, require, require_whole
from unidiff.evaluation.solver_spec import solver_specs
from unidiff.grid import Grid, Tapered
from unidiff.process.base import Process
from unidiff.recipe.recipe import read_recipe
from unidiff.recipe.record import Record
from unidiff.recipe.shipped import recipe_command
from unidiff.solver.base import Solver

__all__ = ["Comparing", "load_comparing"]


@dataclass(frozen=True, kw_only=True)
class Comparing(Record):
    """What to compare. Its parameters are the top-level keys of a comparison's recipe.

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
            places = [Path(run).resolve() for run in self.runs]
            require(len(set(places)) == len(places), "runs", [str(run) for run in self.runs], "each run once")
            for name, part in (("data", self.data), ("process", self.process)):
                if part is not None:
                    raise ParameterError(name, "a trained run has its own. Leave this out, or leave `runs` out.")
        elif self.data is None or self.process is None:
            missing = "data" if self.data is None else "process"
            problem = "it is missing. Give `data` and `process` of an exact model, or the `runs` to compare."
            raise ParameterError(missing, problem)
        elif self.data.mixture is None:
            problem = (
                f"the density of {self.data!r} is no mixture of Gaussians. Use Ring, or a trained model in `runs`."
            )
            raise ParameterError("data", problem)


def load_comparing(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Comparing:
    """Read the recipe of a comparison and check all of it; no data and no run is read.

    Args:
        source: A path, or the name of a shipped recipe such as "compare_exact".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    if recipe_command(source) != "compare":
        problem = "this recipe lists no `solvers`; it is no comparison. To run it: `unidiff run"
        raise RecipeError(f"{source}: {problem} {source}`; runs that were trained can then be compared.")
    comparing: Comparing = read_recipe(Comparing, source, overrides, allow_imports=allow_imports)
    return comparing
