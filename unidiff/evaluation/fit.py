"""Nonlinear least squares over the times of a grid and the weights of a rule, without derivatives of the model."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unidiff.fixed_grid import FixedGrid
from unidiff.grid import default_grid
from unidiff.process.base import Process
from unidiff.solver.linear_multistep import LinearMultistep

__all__ = ["GridCoordinates", "RuleCoordinates", "least_squares"]

_FINE = 1025  # points of the table of the variable
_KNOTS = 9  # the most parameters of a grid
_LEAST_GAIN = 2e-3  # of the sum of squares, relative: what another iteration must bring
_TRIES = 6  # of larger damping, before an iteration is the last


class GridCoordinates:
    """The grids with the steps of a given one, by free parameters: 0 is the given one.

    The variable of the process's default grid, a monotone function of log SNR that is finite at both ends, grows by
    increments that are a softmax; their logarithms are shifted, each by its own parameter, or, of more than 9, by a
    piecewise linear function with 9 values. What is left below a last time above t_min is an increment of its own.
    """

    def __init__(self, process: Process, times: Tensor) -> None:
        self.table = default_grid(process, _FINE).times(process)[:-1].numpy()
        self.fractions = np.linspace(0, 1, _FINE)
        self.early = float(times[-2]) > process.t_min
        at = np.interp(-times[:-1].numpy(), -self.table, self.fractions)
        increments = np.diff(np.append(at, 1.0) if self.early else at)
        self.log_increments = np.log(increments)
        self.size = min(_KNOTS, len(increments))
        at = np.linspace(0, self.size - 1, len(increments))
        self.hats = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(self.size)))

    def grid(self, parameters: Tensor) -> FixedGrid:
        """The grid of these parameters, (size,)."""
        log_increments = self.log_increments + self.hats @ parameters.numpy()
        increments = np.exp(log_increments - log_increments.max())
        fractions = np.cumsum(increments)[:-1] / increments.sum()
        times = tuple(np.interp(fractions, self.fractions, self.table).tolist())
        return FixedGrid(times[:-1], last=times[-1]) if self.early else FixedGrid(times)


class RuleCoordinates:
    """The rules whose newest weights differ from those of a given one: all of them sum to 1."""

    def __init__(self, rule: LinearMultistep, memory: int) -> None:
        self.rule = rule
        self.counts = [min(len(row), memory) for row in rule.weights]
        self.size = sum(self.counts)

    def rule_of(self, parameters: Tensor) -> LinearMultistep:
        """The rule of these parameters, (size,)."""
        rows = []
        for row, shifts in zip(self.rule.weights, parameters.split(self.counts)):
            rows.append((*(a + b for a, b in zip(row, shifts.tolist())), *row[len(shifts) :]))
        return LinearMultistep(tuple(rows))


def least_squares(
    residuals: Callable[[Tensor], Tensor], parameters: Tensor, step: float, iterations: int, report: Callable[[], None]
) -> Tensor:
    """The parameters, (size,) float64, at which a sum of squares is small.

    Levenberg and Marquardt's method with forward differences. No step is taken that does not lessen the sum, and one
    to residuals that are not finite, or that an error says do not exist, is none.

    Args:
        residuals: Parameters -> residuals, (n,).
        parameters: Where to begin.
        step: Of the differences.
        iterations: The most of them, each of `size` evaluations of the residuals and some more.
        report: Called after each evaluation.
    """

    def measured(at: Tensor) -> tuple[Tensor, float]:
        r = residuals(at)
        report()
        total = float(r @ r)
        return r, total if math.isfinite(total) else math.inf

    size, damping = len(parameters), 1e-2
    r, total = measured(parameters)
    for _ in range(iterations if math.isfinite(total) and size else 0):
        columns = []
        for k in range(size):
            shifted = parameters.clone()
            shifted[k] += step
            columns.append((measured(shifted)[0] - r) / step)
        jacobian = torch.stack(columns, 1).nan_to_num(0.0, 0.0, 0.0)
        normal, slope, before = jacobian.T @ jacobian, jacobian.T @ r, total
        scale = normal.diagonal().clamp(min=1e-12 * float(normal.diagonal().max().clamp(min=1e-300)))
        for _ in range(_TRIES):
            tried = parameters - torch.linalg.solve(normal + damping * scale.diag(), slope)
            new_r, new_total = measured(tried)
            if new_total < total:
                parameters, r, total, damping = tried, new_r, new_total, damping / 5
                break
            damping *= 10
        if total > (1 - _LEAST_GAIN) * before:
            break
    return parameters
