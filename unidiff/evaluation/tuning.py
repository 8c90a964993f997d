"""The result of tuning a sampler to a model: what was found, and what it gains where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from unidiff.grid import Grid
from unidiff.solver.base import Solver
from unidiff.solver.sample import Sampling

__all__ = ["Tuning", "TuningRow"]


class TuningRow(NamedTuple):
    """The errors of the default and of the tuned sampler on held-out seeds.

    Attributes:
        what: On what, if not the model itself: a class, or the label of another model.
        nfe: Number of evaluations.
        default: Root mean square error of the default solver and grid.
        tuned: That of the tuned ones; None where they do not exist, as weights of another number of steps.
    """

    what: str
    nfe: int
    default: float
    tuned: float | None

    @property
    def ratio(self) -> float | None:
        """The tuned error over the default one."""
        return None if self.tuned is None or self.default == 0 else self.tuned / self.default


@dataclass(frozen=True)
class Tuning:
    """A solver and a grid fitted to a model, and their errors beside those of the default ones.

    Errors are root mean squares over samples and dimensions of the distance from the exact flow.

    Attributes:
        solver: The solver.
        grid: The grid, with its times.
        nfe: Number of evaluations.
        error: On the held-out seeds.
        default_error: That of the default solver and grid with as many evaluations.
        training_error: On the seeds that it was fitted to.
        rows: The errors at other numbers of evaluations, and where there are any of classes and other models.
        count: Number of held-out samples.
        notes: Sentences about the result, such as that nothing was gained.
    """

    solver: Solver
    grid: Grid
    nfe: int
    error: float
    default_error: float
    training_error: float
    rows: tuple[TuningRow, ...] = ()
    count: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sampling(self) -> Sampling:
        """The solver and the grid as a recipe's `sampling` section."""
        return Sampling(self.solver, self.grid)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values, solver and grid as constructor calls."""
        rows = [{**row._asdict(), "ratio": row.ratio} for row in self.rows]
        names = ("nfe", "error", "default_error", "training_error", "count")
        numbers = {name: getattr(self, name) for name in names}
        return {"solver": repr(self.solver), "grid": repr(self.grid), **numbers, "rows": rows, "notes": [*self.notes]}
