"""The order of a multistep step: it falls where a polynomial would be continued too far beyond its values.

Along the flow x0 and eps are analytic functions of y = log q, q = sigma / alpha. For Gaussian data of variance C they
vary like C^(1/2) (C + q^2)^(-1/2) and q (C + q^2)^(-1/2), whose singularities nearest to the real axis are those of
q^2 = -C: y = log(C) / 2 +- i pi / 2. For any data they lie in Im y >= some fixed width, and C, the scale at which the
data are resolved, may be anything. A polynomial through values at y_0 (the newest), ..., y_{k-1} errs at s by (Hermite)

    f(s) - p(s) = prod_j (s - y_j) / (2 pi i)  int f(z) / ((z - s) prod_j (z - y_j)) dz

around [s, y_{k-1}] inside the strip of width pi, so that one more value multiplies the bound by |s - y_j| / |z - y_j|:

- It lessens the error for singularities at any place if the value is not farther from s than these are from the axis.
  Half the strip's width is sure, its whole width pi is the limit used: values from farther away see other scales.
- Values that lie closer together than the step is long tell nothing of scales as long as the step: |z - y_j| is
  then about |z - y_0| for all of them, and each value multiplies the error by the same factor, above 1 or below. The
  weights, which multiply the errors of values, grow like prod_m (s - y_m) / (y_j - y_m). On equal steps they sum to
  2^k - 1 in absolute value. Where a step is long compared with the one before it is that ratio to the power k - 1.

So k values are used if the step is at most `growth` times as long as the one before, and the oldest is at most `reach`
from its end. Steps shorter than an eighth of the sure distance, pi / 16, may grow as they like, as where the log q of a
mode turns round; so may those up to `free` of modes that differ, whose mean grows with the number of modes that turn at
a time, though no mode's own step does. So the order of convergence is kept on every grid whose steps go to 0.

How much of both a method bears depends on where in the step it needs the polynomial. One for x0 in log q is weighted
with e^y, most at the end of the step, where it is continued farthest: `DATA`. One for eps is weighted with q, most at
the beginning: `NOISE`. One for x0 in a variable that is finite at both ends is continued less far there: `FINITE`.
Methods whose weights are those of short steps, such as the 1/2 of UniPC for the noise or with B(h) = h, and one step of
a Runge-Kutta method, are good as far as the nearest singularity can be: `SHORT`, for a corrector too. The numbers are
the largest, of few tried, with which few runs are worse than DDIM's: tests/exact/test_order_rule.py has the counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DATA",
    "FINITE",
    "NOISE",
    "SHORT",
    "Continuation",
    "full_order",
    "lowered_at_the_end",
    "short_steps",
    "values_per_step",
    "widest",
]


class Continuation(NamedTuple):
    """How far a polynomial may be continued.

    Attributes:
        growth: Longest step with more than one value, in units of the step before.
        reach: Largest distance in log q of the oldest value from the end of the step.
        free: Where modes differ, the longest step that may be longer than `growth` allows.
    """

    growth: float
    reach: float
    free: float


DATA = Continuation(1.1, 1.001 * math.pi, 0.25 * math.pi)  # a tenth for slowly growing steps; the strip's width
NOISE = Continuation(1.4, 5.0, 0.25 * math.pi)
FINITE = Continuation(1.5, 6.0, 1.75)
SHORT = Continuation(1.1, 0.5 * math.pi, 0.25 * math.pi)
_FINE = math.pi / 16
_ALL = math.log(100.0)  # of log q: beyond it is all noise or all data


def full_order(steps: int, order: int) -> list[int]:
    """The number of values for each step: all there are, at most `order`."""
    return [min(order, i + 1) for i in range(steps)]


def lowered_at_the_end(steps: int, order: int) -> list[int]:
    """The published rule: no more values than steps are left, the denoise that ends the run among them."""
    return [min(count, steps - i + 1) for i, count in enumerate(full_order(steps, order))]


def values_per_step(log_q: Tensor, order: int, limits: Continuation) -> list[int]:
    """The number of values, at most `order`, that the step from level i to level i + 1 uses, for every i.

    Args:
        log_q: log(sigma / alpha) at the levels, (N, *modes); where there is one for all modes, finite, or a variable
            like it.
        order: The most values.
        limits: How far the method's polynomial may be continued.
    """
    path, fine = _path(log_q), _FINE if log_q.ndim == 1 else limits.free
    length = path.diff()
    counts = full_order(len(length), order)
    grown = ((length[1:] > limits.growth * length[:-1]) & (length[1:] > fine)).tolist()
    far = {count: (path[count:] - path[:-count] > limits.reach).tolist() for count in range(2, order + 1)}
    for i in range(1, len(counts)):
        while counts[i] > 1 and (grown[i - 1] or far[counts[i]][i + 1 - counts[i]]):
            counts[i] -= 1
    return counts


def short_steps(log_q: Tensor, limits: Continuation) -> list[bool]:
    """For each step from level i to level i + 1 whether it is within reach, so that a value at its end is of use."""
    return (_path(log_q).diff() <= limits.reach).tolist()


def widest(log_q: Tensor) -> Tensor:
    """The path of the largest steps of any mode, (N,): for methods whose weights are those of short steps."""
    return (
        log_q
        if log_q.ndim == 1
        else torch.cat([log_q.new_zeros(1), log_q.diff(dim=0).abs().flatten(1).amax(1).cumsum(0)])
    )


def _path(log_q: Tensor) -> Tensor:
    """The length of the path in log q up to each level, (N,).

    Modes that differ have one order: that of the mean of their paths. Where a mode is all noise or all data its log q
    may change by thousands without any effect, so that only the part between noise and data of 100 to 1 counts.
    """
    alive = log_q[:, None] if log_q.ndim == 1 else log_q.clamp(-_ALL, _ALL)
    steps = alive.diff(dim=0).abs().flatten(1).mean(1)
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])[: len(log_q)]
