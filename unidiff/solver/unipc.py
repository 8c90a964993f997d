"""UniPC: predictor and corrector of one family of exponential integrators (Zhao et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale, expm1
from unidiff.solver.base import Solver
from unidiff.solver.exponential import ddim_step, log_ratio, log_ratios, safe_divide, to_device, weighted_sum
from unidiff.solver.order import DATA, SHORT, Continuation, lowered_at_the_end, short_steps, values_per_step, widest

__all__ = ["UniPC", "Variant"]

Variant = Literal["bh2", "bh1"]


@dataclass(frozen=True)
class UniPC(Solver):
    """UniP and UniC for the data prediction (Zhao et al. 2023, algorithms 5 to 8).

    A corrected step of order p uses p values of x0 and the one at the new time, which the next step needs anyway, and
    is of order p + 1. As published, a single weight (the predictor's at order 2, the corrector's at order 1) is 1/2,
    and the run ends with one denoise, of first order. Not as published, the order falls where the polynomial would be
    continued too far (`unidiff.solver.order`).

    Args:
        order: p, 1 to 3.
        variant: B(h), which a single weight of 1/2 multiplies: "bh2" is e^h - 1, "bh1" is h (section 3.1). Two and more
            weights solve for it (eq. 5), and are the same.
        published_orders: Whether the order falls as published instead: p values, or as many as steps are left.
    """

    order: int = 2  # type: ignore[misc]
    variant: Variant = "bh2"
    published_orders: bool = False

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 3)
        require(self.variant in get_args(Variant), "variant", self.variant, f"one of {', '.join(get_args(Variant))}")

    @property
    def convergence(self) -> int | None:
        """One more than p: the corrector's (theorem 3.1)."""
        return self.order + 1

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        log_q, zero_alpha = log_ratios(levels)
        with_data = log_q[[not zero for zero in zero_alpha]]
        with_data = widest(with_data) if self.limits is SHORT else with_data
        all_counts = self._counts(with_data)
        short = iter([True] * len(levels) if self.published_orders else short_steps(with_data, self.limits))
        weights, counts = iter(to_device(self._all_weights(log_q, zero_alpha, all_counts), u.device)), iter(all_counts)
        nodes: list[Level] = []
        values: list[Tensor] = []  # x0 at the nodes, newest first
        before: Tensor | None = None  # the corrected state at nodes[0]
        count = 0  # of the values that the step uses
        for i, t in enumerate(levels):
            prediction = denoiser(u, t, **cond)
            if before is not None:
                corrector = next(weights)
                if next(short):
                    u = _unified(before, nodes[:count], values[:count], t, corrector, prediction.x0)  # UniC
            if i == len(levels) - 1:
                break
            s = levels[i + 1]
            if zero_alpha[i] or zero_alpha[i + 1]:
                before, u = None, ddim_step(s, prediction)
            else:
                nodes, values, count = [t, *nodes][: self.order], [prediction.x0, *values][: self.order], next(counts)
                before, u = u, _unified(u, nodes[:count], values[:count], s, next(weights))  # UniP
            yield u
        yield prediction.x0

    @property
    def limits(self) -> Continuation:
        """How far its polynomials may be continued."""
        return DATA if self.variant == "bh2" else SHORT

    def _counts(self, log_q: Tensor) -> list[int]:
        """The number of values that each step uses."""
        if self.published_orders:
            return lowered_at_the_end(len(log_q) - 1, self.order)
        return values_per_step(log_q, self.order, self.limits)

    def _half(self, h: Tensor) -> Scale:
        """A single weight of the difference that e^{-h} - 1 multiplies: B(-h) / 2."""
        if self.variant == "bh2":
            return 0.5
        half = torch.where(h == 0, 0.5, -0.5 * h / torch.expm1(-torch.where(h == 0, 1.0, h)))
        return half if h.ndim else float(half)

    def _all_weights(self, log_q: Tensor, zero_alpha: Sequence[bool], counts: Sequence[int]) -> list[list[Scale]]:
        """The weights of each step's predictor and corrector, in the order in which they are used."""
        weights = []
        nodes: list[Tensor] = []
        values = iter(counts)
        for (t, s), singular in zip(pairwise(log_q), map(any, pairwise(zero_alpha))):
            if not singular:
                nodes = [t, *nodes][: self.order]
                offsets = [torch.as_tensor(safe_divide(t - node, t - s)) for node in nodes[1 : next(values)]]
                half = self._half(t - s)
                weights += [
                    _weights(t - s, offsets, half),
                    _weights(t - s, [*offsets, torch.ones_like(t)], half),
                ]
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


def _weights(h: Tensor, offsets: Sequence[Tensor], half: Scale = 0.5) -> list[Scale]:
    """The solution a of R a = b: with these weights the step is exact for polynomials (theorem 3.1, eq. 5).

    A single one is `half`.
    """
    if len(offsets) < 2:
        return [half] * len(offsets)
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
