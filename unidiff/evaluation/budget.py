"""How many steps a number of evaluations buys: counted in runs on a model that costs nothing."""

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

__all__ = ["Planned", "plan", "probe"]


@dataclass(frozen=True)
class Planned:
    """A planned run.

    Attributes:
        spec: The solver, and the grid with its steps.
        requested: The requested number of evaluations, an upper bound; None where the grid does not determine it.
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
    evaluations = cache(lambda spec: probe(spec, process, shape)[0])

    def with_steps(steps: int) -> SolverSpec:
        return replace(spec, grid=spec.grid.with_steps(steps) or spec.grid)

    def cost(steps: int) -> int:
        return evaluations(with_steps(steps))

    try:
        fewest = _fewest_steps(cost)
        low, high = fewest + 4, fewest + 14
        ends = [probe(with_steps(low), process, shape, noise)[1] for noise in (0.0, 1.0)]
        rise = cost(high) - cost(low)
    except ParameterError as error:
        return [], f"{spec.label} is left out: {error}"
    deterministic = torch.equal(*ends)
    if rise <= 0:  # a table's own times, or adaptive steps
        return [Planned(spec, None, deterministic)], ""
    least, requested = cost(fewest), sorted(set(nfes))
    planned: dict[SolverSpec, Planned] = {}
    for nfe in requested:
        if nfe >= least:
            steps = max(fewest, low + (nfe - cost(low)) * (high - low) // rise)  # exact if the cost is linear in steps
            while cost(steps) > nfe:
                steps -= 1
            while cost(steps + 1) <= nfe:
                steps += 1
            run = Planned(with_steps(steps), nfe, deterministic)
            planned.setdefault(run.spec, run)  # if two requests buy the same run, it is the smaller one's
    missed = ", ".join(str(nfe) for nfe in requested if nfe < least)
    note = f"{spec.label} is left out at {missed} evaluations: its smallest run takes {least}." if missed else ""
    return list(planned.values()), note


def _fewest_steps(cost: Callable[[int], int]) -> int:
    """The smallest number of steps, from 1 to 3, that solver and grid accept."""
    for steps in (1, 2):
        with suppress(ParameterError):
            cost(steps)
            return steps
    cost(3)
    return 3
