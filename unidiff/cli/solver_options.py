"""The options that choose solver, grid and number of steps, wherever samples are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from unidiff.errors import ParameterError, RunError, require_whole

if TYPE_CHECKING:
    from unidiff.run.task import Task

__all__ = ["SolverOptions", "StepsList", "steps_or_nfe"]

T = TypeVar("T", bound="Task")


# Of commands that run solvers side by side.
StepsList = Annotated[str | None, typer.Option("--steps", metavar="LIST", help="Numbers of steps, in place of --nfe.")]


def steps_or_nfe(steps: str | None, nfe: str | None, usual: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """What --steps or --nfe change of a task: each takes the place of both.

    Args:
        steps: The value of --steps.
        nfe: The value of --nfe.
        usual: The numbers of evaluations of a task that names none.

    Raises:
        RunError: If one of them is not a list of integers, or both are given.
    """
    if steps is not None and nfe is not None:
        problem = "--nfe is given too, and a step of some solvers takes several evaluations"
        raise RunError(f"--steps {steps}: {problem}. Leave one of them out.")
    if steps is not None:
        return {"steps": _integers("--steps", steps), "nfe": usual}
    return {} if nfe is None else {"steps": (), "nfe": _integers("--nfe", nfe)}


def _integers(option: str, text: str) -> tuple[int, ...]:
    """The integers of `option`, which are separated by commas."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise RunError(f"{option} {text}: write integers separated by commas, as in {option} 1,2,5.") from None


@dataclass(frozen=True)
class SolverOptions:
    """The solver, its grid and the number of steps, in short.

    Raises:
        RunError: If the number of steps is not one.
    """

    solver: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:NUMBER][@GRID[:NUMBER]]",
            help="Solver and grid, as in compare: ddim, ddim:0.5@karras [default: those of the recipe].",
        ),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Steps of the grid [default: those of the recipe].")] = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            require_whole("--steps", self.steps, 1, 1_000_000)

    @property
    def words(self) -> list[str]:
        """The options as they are written; empty if there are none."""
        pairs = (("--solver", self.solver), ("--steps", self.steps))
        return [str(word) for option, value in pairs if value is not None for word in (option, value)]

    def apply(self, task: T, overrides: Sequence[str] | None = None) -> T:
        """A task that draws samples with them.

        Raises:
            RunError: If it has no samples to draw, or the solver or the grid is not defined on its process, or
                `overrides` choose a solver, too.
        """
        if not self.words:
            return task
        chosen = {"sampling.solver": f"--solver {self.solver}"} if self.solver else {}
        if self.steps is not None:
            chosen["sampling.grid"] = f"--steps {self.steps}"
        if "@" in (self.solver or ""):
            chosen["sampling.grid"] = f"--solver {self.solver}"
        for change in overrides or ():
            if option := next((option for key, option in chosen.items() if change.startswith(key)), None):
                raise RunError(f"{option}: `--set {change}` sets this too. Leave one of them out.")
        try:
            return task.drawn_with(self.solver, self.steps)
        except ParameterError as error:
            problem = error.problem if error.parameter == "solvers" else str(error)
            raise RunError(f"{' '.join(self.words)}: {problem.removeprefix(f'{self.solver!r}: ')}") from error
