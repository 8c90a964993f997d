"""Exponential multistep methods: the linear part solved exactly, the network's output interpolated by a polynomial.

Along the probability flow, with q = sigma / alpha,

    u_s = (alpha_s / alpha_t) u_t + alpha_s  int_{q_t}^{q_s} eps dq                    (Zhang & Chen 2023, eq. 7 and 15)
    u_s = (sigma_s / sigma_t) u_t + alpha_s  int_{-h}^{0} x0 e^y dy,   y = log q_s - log q     (Lu et al. 2022b, eq. 8)

with h = log q_t - log q_s. A method replaces eps or x0 by the polynomial through its last values, in a variable w(q) of
its choice. The integrals of the Lagrange polynomials are the weights; they are computed by Gauss-Legendre quadrature,
for all steps of a run together, before it begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap

import numpy as np
import torch
from torch import Tensor

from unidiff.parameterization import Prediction
from unidiff.precision import precise
from unidiff.process.level import Level, Scale, scale_by, sum_of_two

__all__ = [
    "Variable",
    "data_weights",
    "ddim_step",
    "for_each_step",
    "lagrange",
    "log_ratio",
    "log_ratios",
    "noise_weights",
    "safe_divide",
    "to_device",
    "weighted_sum",
    "with_states",
]

# The interpolation variable w at values of log q = log(sigma / alpha).
Variable = Callable[[Tensor], Tensor]

# On an interval of length 40 the error for e^y times a cubic is below 1e-12 with 48 nodes. A variable such as asinh e^y
# is analytic up to a distance pi / 2 of the real line: on an interval of length l the error with n nodes is of order
# rho^-2n, rho = pi / l + sqrt((pi / l)^2 + 1), which is below 1e-22 with 8 nodes up to a length 1/4, with 16 up to 1.
_RULES = {
    half: tuple(map(torch.from_numpy, np.polynomial.legendre.leggauss(n)))
    for half, n in ((0.125, 8), (0.5, 16), (math.inf, 48))
}
_NEAREST = 0.05  # relative to the extrapolation distance: closer nodes would amplify errors by 20 and more
_LONGEST = 40.0  # e^-40 is below the rounding of float64: earlier values do not contribute


def log_ratio(level: Level) -> Scale:
    """log(sigma / alpha) = -log SNR / 2."""
    return -0.5 * level.log_snr


def log_ratios(levels: Sequence[Level]) -> tuple[Tensor, list[bool]]:
    """log(sigma / alpha) at all levels of a run, and for each whether it is infinite in some mode (alpha = 0).

    Solvers compute weights and make decisions from these, so that no step synchronizes the device.

    Returns:
        (N, *modes), float64 on the CPU, in one copy from a device; and N truth values.
    """
    values = [log_ratio(level) for level in levels]
    tensors = [value for value in values if isinstance(value, Tensor)]
    log_q = torch.stack(tensors).to("cpu", torch.float64) if tensors else torch.tensor(values, dtype=torch.float64)
    return log_q, log_q.isposinf().reshape(len(levels), -1).any(1).tolist()


def to_device(weights: Sequence[Sequence[Scale]], device: torch.device) -> list[list[Scale]]:
    """The weights of all steps, moved in one copy where they are tensors over modes."""
    tensors = [weight for step in weights for weight in step if isinstance(weight, Tensor)]
    if not tensors:
        return [list(step) for step in weights]
    moved = iter(torch.stack(tensors).to(device, precise(device)).unbind())
    return [[next(moved) if isinstance(weight, Tensor) else weight for weight in step] for step in weights]


def safe_divide(a: Scale, b: Scale) -> Scale:
    """The quotient a / b; 0 in modes where b is 0 (and a too), which do not change in the step."""
    if isinstance(b, Tensor):
        return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
    return a / b


def ddim_step(s: Level, prediction: Prediction, fresh: Scale = 0.0) -> Tensor:
    """The state at s of the predicted data and noise: DDIM's first-order step (Song, Meng & Ermon 2021, eq. 12-13).

    A fraction `fresh` of the variance sigma_s^2 is left for new noise, which the caller adds.
    """
    return prediction.mix(s.alpha, s.sigma * (1 - fresh) ** 0.5)


def weighted_sum(weights: Sequence[Scale], values: Sequence[Tensor]) -> Tensor:
    """The sum of weights[j] values[j]; the weights are all numbers, or all tensors. Values without one do not count."""
    if isinstance(weights[0], Tensor):
        first, *terms = (weight.to(value) * value for weight, value in zip(weights, values))  # type: ignore[union-attr]
        return sum(terms, first)
    if len(values) < 2:
        return scale_by(weights[0], values[0])
    total = sum_of_two(weights[0], values[0], weights[1], values[1])  # type: ignore[arg-type]
    for weight, value in zip(weights[2:], values[2:]):
        total = torch.add(total, value, alpha=weight)  # type: ignore[arg-type]
    return total


def with_states(
    weights: Sequence[Sequence[Scale]],
    levels: Sequence[Level],
    device: torch.device,
    *,
    corrector: bool = False,
    noise: bool = False,
) -> Iterable[list[Scale]]:
    """For each step the weights of the state at t and of the values in u_s, by the second formula above.

    Args:
        weights: The weights of the values in the integral, for steps that end at levels[1], levels[2], ...
        levels: The levels of the run.
        device: Where the weights are to be.
        corrector: The weights are those of `data_weights` with a corrector: steps with all values so far begin at the
            first level; the others, as those of a predictor, at the level before.
        noise: The values are those of the noise: by the first formula.
    """

    def of(i: int, own: Sequence[Scale]) -> list[Scale]:
        t, s = levels[0 if corrector and len(own) == i + 2 else i], levels[i + 1]
        return [s.alpha / t.alpha if noise else s.sigma / t.sigma, *[s.alpha * weight for weight in own]]

    steps = starmap(of, enumerate(to_device(weights, device)))
    return steps if levels and isinstance(levels[0].alpha, Tensor) else [*steps]  # modes of one step at a time


def lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """The Lagrange polynomials through nodes (k, *modes) at points (g, *modes): (k, g, *modes).

    A node whose distance from the previous one is small compared with the extrapolation has weight 0, and the degree
    is reduced: it would amplify rounding. This occurs in modes that turn from noise to data within one step.
    """
    min_gap = _NEAREST * (at - nodes[0]).abs().amax(0)
    used = [torch.ones_like(min_gap, dtype=torch.bool)]
    last = nodes[0]
    for node in nodes[1:]:
        used.append((node - last).abs() > min_gap)
        last = torch.where(used[-1], node, last)
    columns = []
    for j in range(len(nodes)):
        column = torch.ones_like(at)
        for m in range(len(nodes)):
            if m != j:
                both = used[j] & used[m]
                column = column * torch.where(both, (at - nodes[m]) / torch.where(both, nodes[j] - nodes[m], 1.0), 1.0)
        columns.append(torch.where(used[j], column, 0.0))
    return torch.stack(columns)


def noise_weights(variable: Variable, log_q: Tensor, counts: Sequence[int]) -> list[list[Scale]]:
    """For each step from level i to level i + 1 the weights c with int_{q_t}^{q_s} eps dq = sum_j c_j eps_j.

    eps_0 is the value at level i, eps_1 at level i - 1, and so on: counts[i] of them. The levels are given by their
    `log_ratios`.
    """

    def weigh(start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
        points, half, weights = _quadrature(start, end)
        measure = points.exp() * half * weights  # dq = q d log q
        return (lagrange(variable(nodes), variable(points)) * measure).sum(1)

    return for_each_step(weigh, log_q, counts)


def data_weights(
    variable: Variable,
    log_q: Tensor,
    counts: Sequence[int],
    *,
    corrector: bool = False,
    eta: float = 0.0,
    implicit: bool = False,
) -> list[list[Scale]]:
    """For each step the weights c with (1 + eta^2) int_{-h}^0 x0 e^{(1 + eta^2) y} dy = sum_j c_j x0_j.

    Args:
        variable: The interpolation variable.
        log_q: The `log_ratios` of the run's levels. The first may have alpha = 0, if the variable is finite there.
        counts: For each i how many values at level i, i - 1, ... a step from level i uses, at most i + 1.
        corrector: The first value is the one at level i + 1, before the others. A step with all values so far, i + 1,
            then begins at level 0: its polynomial is integrated over the whole interval.
        eta: Noise of the reverse SDE relative to the process's own: its linear part decays by eta^2 h more.
        implicit: The first value is the one at level i + 1, before the others; every step begins at level i.
    """
    rate = 1 + eta**2

    def weigh(start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
        nodes = torch.cat([end[None], nodes]) if implicit else nodes
        points, half, weights = _quadrature(torch.minimum(start, end + _LONGEST / rate), end)
        measure = -rate * torch.exp(rate * (end - points)) * half * weights  # dy = -d log q
        return (lagrange(variable(nodes), variable(points)) * measure).sum(1)

    return for_each_step(weigh, log_q, counts, corrector)


def for_each_step(
    weigh: Callable[[Tensor, Tensor, Tensor], Tensor], log_q: Tensor, counts: Sequence[int], corrector: bool = False
) -> list[list[Scale]]:
    """The weights (k, ...) of each step, `weigh(start, end, nodes)`, from the `log_ratios` of a run's levels.

    Those of all steps with the same number of values, counts[i], are computed together, along a leading axis.
    """
    weights: list[list[Scale]] = [[] for _ in counts]
    for count in sorted(set(counts)):
        steps = torch.tensor([i for i, used in enumerate(counts) if used == count])
        nodes = torch.stack([log_q[steps + corrector - j] for j in range(count + corrector)])
        start, end = log_q[torch.where(steps == count - 1, 0, steps) if corrector else steps], log_q[steps + 1]
        if log_q.ndim == 1:
            short = (start - end).abs() <= 2 * min(_RULES)  # which need fewer points
            groups = [group for group in (short.nonzero()[:, 0], (~short).nonzero()[:, 0]) if len(group)]
        else:  # one step at a time: the nodes of all steps and modes would not fit in memory
            groups = [*torch.arange(len(steps))]
        for group in groups:
            found = weigh(start[group], end[group], nodes[:, group])
            rows: list[list[Scale]] = found.T.tolist() if log_q.ndim == 1 else [list(found)]
            for i, row in zip(steps[group].reshape(-1).tolist(), rows):
                weights[i] = row
    return weights


def _quadrature(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre points in an interval, (g, *start.shape), half its length, signed, and the weights on [-1, 1]."""
    half = (end - start) / 2
    longest = float(half.abs().max())
    rule = next(rule for longest_of_rule, rule in _RULES.items() if not longest > longest_of_rule)
    nodes, weights = (values.reshape(-1, *[1] * half.ndim) for values in rule)
    return (start + end) / 2 + half * nodes, half, weights
