"""UniPC: predictor and corrector of one family of exponential integrators (Zhao et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale, expm1
from unidiff.solver.base import Solver
from unidiff.solver.exponential import ddim_step, log_ratio, log_ratios, safe_divide, to_device, weighted_sum

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(Solver):
    """UniP and UniC for the data prediction, with B(h) = e^h - 1 (Zhao et al. 2023, algorithms 5 to 8, "bh2").

    A corrected step of order p uses p values of x0 and the one at the new time, which the next step needs anyway, and
    is of order p + 1. As published, a single weight (the predictor's at order 2, the corrector's at order 1) is 1/2,
    and the run ends with one denoise, of first order.

    Args:
        order: p, 1 to 3.
    """

    order: int = 2  # type: ignore[misc]

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 3)

    @property
    def convergence(self) -> int | None:
        """One more than p: the corrector's (theorem 3.1)."""
        return self.order + 1

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        log_q, zero_alpha = log_ratios(levels)
        weights = iter(to_device(self._all_weights(log_q, zero_alpha), u.device))
        nodes: list[Level] = []
        values: list[Tensor] = []  # x0 at the nodes, newest first
        before: Tensor | None = None  # the corrected state at nodes[0]
        for i, t in enumerate(levels):
            prediction = denoiser(u, t, **cond)
            if before is not None:
                u = _unified(before, nodes, values, t, next(weights), prediction.x0)  # UniC
            if i == len(levels) - 1:
                break
            s = levels[i + 1]
            if zero_alpha[i] or zero_alpha[i + 1]:
                u = ddim_step(s, prediction)
            else:
                nodes, values = [t, *nodes][: self.order], [prediction.x0, *values][: self.order]
                before, u = u, _unified(u, nodes, values, s, next(weights))  # UniP
            yield u
        yield prediction.x0

    def _all_weights(self, log_q: Tensor, zero_alpha: Sequence[bool]) -> list[list[Scale]]:
        """The weights of each step's predictor and corrector, in the order in which they are used."""
        weights = []
        nodes: list[Tensor] = []
        for (t, s), singular in zip(pairwise(log_q), map(any, pairwise(zero_alpha))):
            if not singular:
                nodes = [t, *nodes][: self.order]
                offsets = [torch.as_tensor(safe_divide(t - node, t - s)) for node in nodes[1:]]
                weights += [_weights(t - s, offsets), _weights(t - s, [*offsets, torch.ones_like(t)])]
        return weights


def _unified(
    u: Tensor, nodes: list[Level], values: list[Tensor], s: Level, weights: list[Scale], ahead: Tensor | None = None
) -> Tensor:
    """The step from nodes[0] to s through the values, and through the one at s (`ahead`) in the corrector."""
    t = nodes[0]
    h = log_ratio(t) - log_ratio(s)
    offsets = [safe_divide(log_ratio(t) - log_ratio(node), h) for node in nodes[1:]]
    differences = [(value - values[0]) * safe_divide(1.0, r) for r, value in zip(offsets, values[1:])]
    if ahead is not None:
        differences.append(ahead - values[0])
    growth = expm1(-h)
    result = s.sigma / t.sigma * u - s.alpha * growth * values[0]
    if not differences:
        return result
    return result - s.alpha * growth * weighted_sum(weights, differences)


def _weights(h: Tensor, offsets: Sequence[Tensor]) -> list[Scale]:
    """The solution a of R a = b: with these weights the step is exact for polynomials (theorem 3.1, eq. 5).

    A single one is 1/2 as published.
    """
    if len(offsets) < 2:
        return [0.5] * len(offsets)
    r = torch.stack(list(offsets), -1)
    still = h == 0  # modes whose SNR stands still take no step
    h, r = torch.where(still, 1.0, h), torch.where(still[..., None], torch.arange(-1.0, len(offsets) - 1).flip(0), r)
    matrix = torch.stack([r**n for n in range(len(offsets))], -2)
    phi = torch.expm1(-h) / -h - 1
    right = []
    for n in range(1, len(offsets) + 1):
        right.append(phi * math.factorial(n) / torch.expm1(-h))
        phi = phi / -h - 1 / math.factorial(n + 1)
    solution = torch.linalg.solve(matrix, torch.stack(right, -1))
    return list(solution.unbind(-1)) if h.ndim else solution.tolist()
