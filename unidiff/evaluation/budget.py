"""The runs that a number of steps, or of evaluations, buys: counted on a model that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from unidiff.denoiser import Counted, Denoiser
from unidiff.errors import ParameterError
from unidiff.parameterization import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level
from unidiff.solver.spec import SolverSpec

__all__ = ["Planned", "plan", "plan_steps", "probe"]

_LOW, _HIGH = 4, 14  # steps beyond the fewest between which the rise of the evaluations is measured


@dataclass(frozen=True)
class Planned:
    """A planned run.

    Attributes:
        spec: The solver, and the grid with its steps.
        requested: The requested number of evaluations, an upper bound, or of steps; None where the grid does not
            determine it.
        deterministic: Whether the result depends on the start alone.
    """

    spec: SolverSpec
    requested: int | None
    deterministic: bool


class _StandardNormal(Denoiser):
    """The exact denoiser of standard normal data."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        scaled = u / (level.alpha**2 + level.sigma**2)
        return Prediction(level.alpha * scaled, level.sigma * scaled, level)


@torch.no_grad()
def probe(spec: SolverSpec, process: Process, shape: Sequence[int], noise: float = 0.0) -> tuple[int, Tensor]:
    """Run a solver for one sample, (*shape), of standard normal data; `noise` replaces every number that it draws.

    Returns:
        The evaluations, counted, and the final state, (1, *modes).

    Raises:
        ParameterError: If the solver or the grid is not defined on the process.
    """
    counted, times = Counted(_StandardNormal(process)), spec.grid.times(process)
    start = process.start(torch.ones_like, torch.empty(1, *shape, dtype=torch.float64))
    *_, last = spec.solver.trajectory(counted, start, times, lambda like: torch.full_like(like, noise))
    return counted.nfe, last.u


def _cost(spec: SolverSpec, process: Process, shape: Sequence[int]) -> tuple[_Cost | None, tuple[list[Planned], str]]:
    """What the steps of a solver cost; or None, and the runs and the note of one whose steps cannot be chosen."""
    try:
        cost = _Cost.of(spec, process, shape)
    except ParameterError as error:
        return None, ([], f"{spec.label} is left out: {error}")
    if cost.rise <= 0:
        return None, ([Planned(spec, None, cost.deterministic)], "")
    return cost, ([], "")


def plan(spec: SolverSpec, process: Process, shape: Sequence[int], nfes: Sequence[int]) -> tuple[list[Planned], str]:
    """The runs of a solver with the most steps whose evaluations do not exceed the requested numbers.

    Args:
        spec: The solver and the grid.
        process: The process.
        shape: Shape of one sample.
        nfes: Requested numbers of evaluations.

    Returns:
        The runs, and a note on which were left out and why; empty if none was.
    """
    cost, rest = _cost(spec, process, shape)
    if cost is None:
        return rest
    least, requested = cost(cost.fewest), sorted(set(nfes))
    planned: dict[SolverSpec, Planned] = {}
    for nfe in requested:
        if nfe >= least:
            run = Planned(cost.with_steps(cost.most_steps(nfe)), nfe, cost.deterministic)
            planned.setdefault(run.spec, run)  # if two requests buy the same run, it is the smaller one's
    missed = [nfe for nfe in requested if nfe < least]
    note = (
        f"{spec.label} is left out at {_these(missed, 'evaluation')}: its smallest run takes {least}." if missed else ""
    )
    return list(planned.values()), note


def _these(numbers: Sequence[int], noun: str) -> str:
    """The numbers in words: "1 step", "1, 2 steps"."""
    return f"{', '.join(map(str, numbers))} {noun}{'s' * ([*numbers] != [1])}"


def plan_steps(
    spec: SolverSpec, process: Process, shape: Sequence[int], steps: Sequence[int]
) -> tuple[list[Planned], str]:
    """The runs of a solver with these numbers of steps, each of as many evaluations as it takes; see `plan`."""
    cost, rest = _cost(spec, process, shape)
    if cost is None:
        return rest
    requested = sorted(set(steps))
    runs = [Planned(cost.with_steps(n), n, cost.deterministic) for n in requested if n >= cost.fewest]
    missed = [n for n in requested if n < cost.fewest]
    note = f"{spec.label} is left out at {_these(missed, 'step')}: it needs at least {cost.fewest}." if missed else ""
    return runs, note


@dataclass(frozen=True)
class _Cost:
    """Evaluations over steps.

    Attributes:
        with_steps: The solver and the grid with a number of steps.
        evaluations: Of such a run.
        fewest: The smallest number of steps that solver and grid accept.
        rise: Evaluations of ten steps more; 0 for a table's own times, and for adaptive steps.
        deterministic: Whether the result depends on the start alone.
    """

    with_steps: Callable[[int], SolverSpec]
    evaluations: Callable[[SolverSpec], int]
    fewest: int
    rise: int
    deterministic: bool

    @classmethod
    def of(cls, spec: SolverSpec, process: Process, shape: Sequence[int]) -> _Cost:
        """Of a solver and a grid; a ParameterError if they are not defined on the process."""
        evaluations = cache(lambda spec: probe(spec, process, shape)[0])

        def with_steps(steps: int) -> SolverSpec:
            return replace(spec, grid=spec.grid.with_steps(steps) or spec.grid)

        fewest = _fewest_steps(lambda steps: evaluations(with_steps(steps)))
        low, high = with_steps(fewest + _LOW), with_steps(fewest + _HIGH)
        ends = [probe(low, process, shape, noise)[1] for noise in (0.0, 1.0)]
        return cls(with_steps, evaluations, fewest, evaluations(high) - evaluations(low), torch.equal(*ends))

    def __call__(self, steps: int) -> int:
        return self.evaluations(self.with_steps(steps))

    def most_steps(self, nfe: int) -> int:
        """The most steps of at most so many evaluations."""
        low = self.fewest + _LOW
        steps = max(self.fewest, low + (nfe - self(low)) * (_HIGH - _LOW) // self.rise)  # exact if the cost is linear
        while self(steps) > nfe:
            steps -= 1
        while self(steps + 1) <= nfe:
            steps += 1
        return steps


def _fewest_steps(cost: Callable[[int], int]) -> int:
    """The smallest number of steps, from 1 to 3, that solver and grid accept."""
    for steps in (1, 2):
        with suppress(ParameterError):
            cost(steps)
            return steps
    cost(3)
    return 3
