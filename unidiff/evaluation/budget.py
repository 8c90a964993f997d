"""How many steps a number of evaluations buys: measured with a model that costs nothing, never taken from a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError
from unidiff.evaluation.entrant import Entrant
from unidiff.grid import Grid
from unidiff.parameterization import Prediction
from unidiff.process.base import Level, Process

__all__ = ["Planned", "is_deterministic", "plan", "probe"]

_SMALLEST = (1, 2, 3)  # a grid or a solver may need more steps than one
_APART = 14  # steps between the two runs from which the cost of a step is read


@dataclass(frozen=True)
class Planned:
    """A run to be made.

    Attributes:
        entrant: The solver, and the grid with its steps.
        requested: The number of evaluations that was asked for, and is not exceeded; None where the grid does not
            decide it.
        deterministic: Whether the result depends on the start alone.
    """

    entrant: Entrant
    requested: int | None
    deterministic: bool


class _Free(Denoiser):
    """The exact denoiser of standard normal data; it ends a run that asks more often than allowed."""

    def __init__(self, process: Process, allowed: int | None) -> None:
        super().__init__()
        self.process = process
        self._left = [allowed]

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        (left,) = self._left
        if left is not None:
            if left == 0:
                raise _Spent
            self._left[0] = left - 1
        share = u / (level.alpha**2 + level.sigma**2)
        return Prediction(level.alpha * share, level.sigma * share, level)


class _Spent(Exception):
    pass


@torch.no_grad()
def probe(
    entrant: Entrant, process: Process, shape: Sequence[int], allowed: int | None = None, drawn: float = 0.0
) -> tuple[int, Tensor] | None:
    """Run an entrant for one sample of the simplest data, from one start.

    Args:
        entrant: The solver and the grid.
        process: The process.
        shape: Shape of one sample.
        allowed: Evaluations after which to give up; None for no limit.
        drawn: What stands for every number that the solver draws.

    Returns:
        The evaluations, counted, and where the run ended; None if it takes more than allowed.

    Raises:
        ParameterError: If the solver or the grid refuses the process.
    """
    entrant.solver.check(process)
    times = entrant.grid.times(process)
    counted = Counted(_Free(process, allowed))
    start = process.prior(torch.ones(1, *shape, dtype=torch.float64))
    try:
        *_, last = entrant.solver.trajectory(counted, start, times, lambda like: torch.full_like(like, drawn))
    except _Spent:
        return None
    return counted.nfe, last.u


def is_deterministic(entrant: Entrant, process: Process, shape: Sequence[int]) -> bool:
    """Whether the end of a run is the same whatever the solver draws."""
    one, other = (probe(entrant, process, shape, drawn=drawn) for drawn in (0.0, 1.0))
    assert one is not None
    assert other is not None
    return torch.equal(one[1], other[1])


def plan(entrant: Entrant, process: Process, shape: Sequence[int], nfes: Sequence[int]) -> tuple[list[Planned], str]:
    """Find the runs of an entrant that come nearest to the requested numbers of evaluations from below.

    Args:
        entrant: The solver and the grid.
        process: The process.
        shape: Shape of one sample.
        nfes: Requested numbers of evaluations.

    Returns:
        The runs, and a note that says which were left out and why; empty if none was.
    """

    def evaluations(steps: int) -> int:
        measured = probe(_with_steps(entrant, steps), process, shape)
        assert measured is not None
        return measured[0]

    try:
        if not any(field.name == "steps" for field in dataclasses.fields(entrant.grid)):  # a table's own times
            return [Planned(entrant, None, is_deterministic(entrant, process, shape))], ""
        smallest = _smallest(entrant, process, shape)
        least, more = evaluations(smallest), evaluations(smallest + _APART)
        if least == more:  # steps that adapt themselves
            return [Planned(entrant, None, is_deterministic(entrant, process, shape))], ""
    except ParameterError as error:
        return [], f"{entrant.label} is left out: {error}"
    planned: dict[Entrant, Planned] = {}
    for nfe in sorted(set(nfes)):
        if nfe >= least:
            guess = smallest + (nfe - least) * _APART // (more - least)
            chosen = _with_steps(entrant, _most_steps(entrant, process, shape, nfe, smallest, guess))
            if chosen not in planned:  # the smaller of two requests that buy the same run
                planned[chosen] = Planned(chosen, nfe, is_deterministic(chosen, process, shape))
    missed = ", ".join(str(nfe) for nfe in sorted(set(nfes)) if nfe < least)
    note = f"{entrant.label} is left out at {missed} evaluations: its smallest run takes {least}." if missed else ""
    return list(planned.values()), note


def _with_steps(entrant: Entrant, steps: int) -> Entrant:
    grid: Grid = dataclasses.replace(entrant.grid, steps=steps)  # type: ignore[call-arg]
    return Entrant(entrant.solver, grid)


def _smallest(entrant: Entrant, process: Process, shape: Sequence[int]) -> int:
    """The smallest number of steps that solver and grid accept."""
    for steps in _SMALLEST:
        try:
            probe(_with_steps(entrant, steps), process, shape)
        except ParameterError:
            if steps == _SMALLEST[-1]:
                raise
        else:
            return steps
    raise AssertionError


def _most_steps(entrant: Entrant, process: Process, shape: Sequence[int], nfe: int, smallest: int, guess: int) -> int:
    """The largest number of steps whose evaluations do not exceed `nfe`; those of the smallest do not."""

    def fits(steps: int) -> bool:
        return probe(_with_steps(entrant, steps), process, shape, nfe) is not None

    low, high, stride = smallest, guess, 1
    if fits(guess):
        low, high = guess, guess + 1
        while fits(high):
            stride *= 2
            low, high = high, high + stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
