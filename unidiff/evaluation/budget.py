"""How many steps a number of evaluations buys: measured with a model that costs nothing, never taken from a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError
from unidiff.evaluation.solver_spec import SolverSpec
from unidiff.parameterization import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["Planned", "plan", "probe"]

_SMALLEST = (1, 2, 3)  # a grid or a solver may need more steps than one
_APART = (4, 14)  # so many steps more: two runs from which the cost of a step is read


@dataclass(frozen=True)
class Planned:
    """A run to be made.

    Attributes:
        entrant: The solver, and the grid with its steps.
        requested: The number of evaluations that was asked for, and is not exceeded; None where the grid does not
            decide it.
        deterministic: Whether the result depends on the start alone.
    """

    entrant: SolverSpec
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
    entrant: SolverSpec, process: Process, shape: Sequence[int], allowed: int | None = None, drawn: float = 0.0
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
    times = entrant.grid.times(process)
    counted = Counted(_Free(process, allowed))
    start = process.start(torch.ones_like, torch.empty(1, *shape, dtype=torch.float64))
    try:
        *_, last = entrant.solver.trajectory(counted, start, times, lambda like: torch.full_like(like, drawn))
    except _Spent:
        return None
    return counted.nfe, last.u


def _measure(entrant: SolverSpec, process: Process, shape: Sequence[int]) -> tuple[int, bool]:
    """Evaluations, and whether the end of the run is the same whatever the solver draws."""
    one, other = (probe(entrant, process, shape, drawn=drawn) for drawn in (0.0, 1.0))
    assert one is not None
    assert other is not None
    return one[0], torch.equal(one[1], other[1])


def plan(entrant: SolverSpec, process: Process, shape: Sequence[int], nfes: Sequence[int]) -> tuple[list[Planned], str]:
    """Find the runs of an entrant that come nearest to the requested numbers of evaluations from below.

    Args:
        entrant: The solver and the grid.
        process: The process.
        shape: Shape of one sample.
        nfes: Requested numbers of evaluations.

    Returns:
        The runs, and a note that says which were left out and why; empty if none was.
    """
    try:
        if entrant.grid.with_steps(50) is None:  # a table's own times
            return [Planned(entrant, None, _measure(entrant, process, shape)[1])], ""
        smallest, least = _smallest(entrant, process, shape)
        few, more = (smallest + apart for apart in _APART)
        nfe_few, deterministic = _measure(_with_steps(entrant, few), process, shape)
        nfe_more, _ = _measure(_with_steps(entrant, more), process, shape)
    except ParameterError as error:
        return [], f"{entrant.label} is left out: {error}"
    if nfe_few == nfe_more:  # steps that adapt themselves
        return [Planned(entrant, None, deterministic)], ""
    line = _Line(few, nfe_few, more, nfe_more)
    planned: dict[SolverSpec, Planned] = {}
    for nfe in sorted(set(nfes)):
        if nfe >= least:
            chosen = _with_steps(entrant, _most_steps(entrant, process, shape, nfe, smallest, line))
            # Two requests may buy the same run: it is the smaller one's.
            planned.setdefault(chosen, Planned(chosen, nfe, deterministic))
    missed = ", ".join(str(nfe) for nfe in sorted(set(nfes)) if nfe < least)
    note = f"{entrant.label} is left out at {missed} evaluations: its smallest run takes {least}." if missed else ""
    return list(planned.values()), note


def _with_steps(entrant: SolverSpec, steps: int) -> SolverSpec:
    return SolverSpec(entrant.solver, entrant.grid.with_steps(steps) or entrant.grid)


def _smallest(entrant: SolverSpec, process: Process, shape: Sequence[int]) -> tuple[int, int]:
    """The smallest number of steps that solver and grid accept, and its evaluations."""
    for steps in _SMALLEST:
        try:
            measured = probe(_with_steps(entrant, steps), process, shape)
        except ParameterError:
            if steps == _SMALLEST[-1]:
                raise
            continue
        assert measured is not None
        return steps, measured[0]
    raise AssertionError


class _Line(NamedTuple):
    """Evaluations as a straight line in the steps, through two runs."""

    few: int
    nfe_few: int
    more: int
    nfe_more: int

    def steps(self, nfe: int) -> int:
        return self.few + (nfe - self.nfe_few) * (self.more - self.few) // (self.nfe_more - self.nfe_few)

    def holds(self, steps: int, nfe: int) -> bool:
        return (nfe - self.nfe_few) * (self.more - self.few) == (steps - self.few) * (self.nfe_more - self.nfe_few)


def _most_steps(
    entrant: SolverSpec, process: Process, shape: Sequence[int], nfe: int, smallest: int, line: _Line
) -> int:
    """The largest number of steps whose evaluations do not exceed `nfe`; those of the smallest do not."""

    def fits(steps: int) -> int | None:
        measured = probe(_with_steps(entrant, steps), process, shape, nfe)
        return None if measured is None else measured[0]

    guess = max(smallest, line.steps(nfe))
    low, high, stride = smallest, guess, 1
    if (taken := fits(guess)) is not None:
        if line.holds(guess, taken):  # then one step more would be too many
            return guess
        low, high = guess, guess + 1
        while fits(high) is not None:
            stride *= 2
            low, high = high, high + stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) is None else (middle, high)
    return low
