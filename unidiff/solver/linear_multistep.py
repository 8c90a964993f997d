"""Linear multistep rules with given weights, and the weights of a solver that is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.noise import Noise
from unidiff.parameterization import Prediction
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level
from unidiff.solver.base import Solver
from unidiff.solver.exponential import weighted_sum
from unidiff.text import count_of

__all__ = ["LinearMultistep", "multistep_weights"]


@dataclass(frozen=True)
class LinearMultistep(Solver):
    """A linear multistep rule for x0, its weights given, with the linear part of the flow solved exactly.

    u_s = (sigma_s / sigma_t) u_t + (alpha_s - alpha_t sigma_s / sigma_t) sum_j w_j x0_j,   sum_j w_j = 1

    where x0_0 is the newest value and w_0 is one minus the other weights: so the rule is consistent whatever they are,
    and exact where x0 does not change along the flow. DDIM is the rule without other weights; every multistep method
    of one evaluation a step that solves the linear part exactly is such a rule on each grid, one with correctors too
    (`multistep_weights`), since a corrector adds multiples of values of x0. As a rule for each step it is the form of
    the non-stationary solvers of Shaul et al. 2024.

    Args:
        weights: The weights w_1, w_2, ... of the earlier values of x0, the newest first: one row for each step, the
            first one empty, the last one for the step to the data; or one row for every step, of which a step uses as
            many as there are values, and whose last step is a denoise. By default DDIM's.
    """

    weights: tuple[tuple[float, ...], ...] = ((),)

    def __post_init__(self) -> None:
        require(len(self.weights) > 0, "weights", self.weights, "a list of at least one row")
        for i, row in enumerate(self.weights):
            require(all(map(math.isfinite, row)), "weights", row, "lists of finite numbers")
            if len(self.weights) > 1 and len(row) > i:
                problem = f"row {i} must have at most {i} numbers, the values before that step, got {len(row)}"
                raise ParameterError("weights", problem)

    def rows(self, steps: int) -> list[list[float]]:
        """The weights of all values, the newest first, for each of so many steps; they sum to 1.

        Raises:
            ParameterError: If there are rows for another number of steps.
        """
        rows = self.weights
        if len(rows) == 1:
            rows = (*(rows[0][:i] for i in range(steps - 1)), ())
        if len(rows) != steps:
            problem = f"these are the weights of {count_of(len(rows), 'step')}, and the grid has {steps}"
            raise ParameterError("weights", f"{problem}. Use the grid they were made for.")
        return [[1 - math.fsum(row), *row] for row in rows]

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        rows = self.rows(len(levels))
        longest, values = max(map(len, rows)), list[Tensor]()
        for row, (t, s) in zip(rows, pairwise(levels)):
            values = [denoiser(u, t, **cond).x0, *values][:longest]
            ratio = s.sigma / t.sigma
            change = s.alpha - t.alpha * ratio
            u = weighted_sum([ratio, *[change * weight for weight in row]], [u, *values[: len(row)]])
            yield u
        values = [denoiser(u, levels[-1], **cond).x0, *values]
        yield weighted_sum(rows[-1], values[: len(rows[-1])])


class _Impulses(Denoiser):
    """Answers evaluation j with x0 = 1 for sample j, and with 0 for the others."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        self.times: list[float] = []

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        x0 = torch.zeros_like(u)
        if len(self.times) < len(u) - 1:
            x0[len(self.times)] = 1.0
        self.times.append(float(level.time))
        return Prediction(x0, (u - level.alpha * x0) / level.sigma, level)


@torch.no_grad()
def multistep_weights(solver: Solver, process: Process, times: Tensor) -> LinearMultistep:
    """A solver on a grid of a process as a `LinearMultistep`: it draws the same samples, to rounding.

    The weights are read from runs on models whose x0 is 1 at one of the evaluations and 0 at the others.

    Args:
        solver: A deterministic multistep method with one evaluation at each time.
        process: The process; its modes have one SNR.
        times: The times of the grid, (N + 1,).

    Raises:
        ParameterError: If the solver is not such a rule.
    """
    require_one_snr(process, "solver", "weights for all modes need one SNR", "Use the solver itself.")
    model, steps = _Impulses(process), len(times) - 1
    start = torch.zeros(steps + 1, 1, dtype=torch.float64)
    start[steps] = 1.0  # of a model whose x0 is 0
    states = [state.u[:, 0] for state in solver.trajectory(model, start, times, torch.zeros_like)]
    levels = process.levels_at(times[:-1])
    rows = []
    exact = model.times == times[:-1].tolist() and abs(float(states[-1][steps])) < 1e-9
    for i, (before, after) in enumerate(pairwise(states)):
        t = levels[i]
        ratio, alpha = (levels[i + 1].sigma / t.sigma, levels[i + 1].alpha) if i + 1 < steps else (0.0, 1.0)
        found = (after - ratio * before) / (alpha - t.alpha * ratio)
        weights = found[: i + 1].flip(0).tolist()
        exact = exact and abs(math.fsum(weights) - 1) < 1e-6 and abs(float(found[steps])) < 1e-6
        rows.append(tuple(weights[1:]))
    if not exact:
        problem = f"{solver!r} is not a linear multistep rule with one evaluation at each time"
        raise ParameterError("solver", f"{problem}. Use one, such as ExponentialAdams.")
    return LinearMultistep(tuple(rows))
