"""UniPC: predictor and corrector of one family of exponential integrators (Zhao et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale, once_for_grid
from unidiff.solver.base import Solver
from unidiff.solver.exponential import ddim_step, for_each_step, log_ratios, safe_divide, weighted_sum, with_states
from unidiff.solver.order import DATA, SHORT, Continuation, lowered_at_the_end, short_steps, values_per_step, widest

__all__ = ["UniPC", "Variant"]

Variant = Literal["bh2", "bh1"]
_Rows = Iterable[list[Scale]]


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
        made = once_for_grid(levels, self, lambda: self._weights(levels, u.device))
        zero_alpha, predictor, corrector, short = made[0], iter(made[1]), iter(made[2]), iter(made[3])
        values: list[Tensor] = []  # x0 at the last levels, newest first
        before: Tensor | None = None  # the corrected state at the newest of them
        for i, t in enumerate(levels):
            prediction = denoiser(u, t, **cond)
            if before is not None:
                weights = next(corrector)
                if next(short):
                    u = weighted_sum(weights, [before, *values[: len(weights) - 2], prediction.x0])  # UniC
            if i == len(levels) - 1:
                break
            s = levels[i + 1]
            if zero_alpha[i] or zero_alpha[i + 1]:
                u, before = ddim_step(s, prediction), None  # which nothing corrects
            else:
                values, before = [prediction.x0, *values][: self.order], u
                u = weighted_sum(next(predictor), [u, *values])  # UniP
            yield u
        yield prediction.x0

    @property
    def limits(self) -> Continuation:
        """How far its polynomials may be continued."""
        return DATA if self.variant == "bh2" else SHORT

    def _weights(self, levels: Sequence[Level], device: torch.device) -> tuple[list[bool], _Rows, _Rows, list[bool]]:
        """Where alpha is 0; and for each step the predictor's and the corrector's weights, and whether to correct."""
        log_q, zero_alpha = log_ratios(levels)
        used = [i for i, zero in enumerate(zero_alpha) if not zero]
        path, steps = [levels[i] for i in used], log_q[used]
        counts, short = self._orders(steps)
        predictor = with_states(for_each_step(self._predictor, steps, counts), path, device)
        return zero_alpha, predictor, with_states(for_each_step(self._corrector, steps, counts), path, device), short

    def _orders(self, log_q: Tensor) -> tuple[list[int], list[bool]]:
        """For each step the number of values that it uses, and whether it is short enough to be corrected."""
        if self.published_orders:
            return lowered_at_the_end(len(log_q) - 1, self.order), [True] * len(log_q)
        path = widest(log_q) if self.limits is SHORT else log_q
        return values_per_step(path, self.order, self.limits), short_steps(path, self.limits)

    def _predictor(self, start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
        """The weights of x0 at the nodes, newest first, in a step of log(sigma / alpha) from start to end."""
        return self._on_values(start - end, [safe_divide(start - node, start - end) for node in nodes[1:]])

    def _corrector(self, start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
        """The same with the value at the end, which comes last."""
        offsets = [safe_divide(start - node, start - end) for node in nodes[1:]]
        return self._on_values(start - end, [*offsets, torch.ones_like(start)])

    def _on_values(self, h: Tensor, offsets: Sequence[Scale]) -> Tensor:
        """The weights of x0 itself from those of its differences D_j = x0_j - x0_0 over r_j, with (1 - e^-h)."""
        r = [torch.as_tensor(offset) for offset in offsets]
        own = [self._half(h)] * len(r) if len(r) < 2 else _weights(h, r)
        weights = [torch.as_tensor(safe_divide(weight, offset)) for weight, offset in zip(own, r)]
        return -torch.expm1(-h) * torch.stack([1 - sum(weights, torch.zeros_like(h)), *weights])

    def _half(self, h: Tensor) -> Tensor:
        """A single weight of the difference that 1 - e^-h multiplies: -B(-h) / 2 over it."""
        if self.variant == "bh2":
            return torch.full_like(h, 0.5)
        return torch.where(h == 0, 0.5, -0.5 * h / torch.expm1(-torch.where(h == 0, 1.0, h)))


def _weights(h: Tensor, offsets: Sequence[Tensor]) -> list[Tensor]:
    """The solution a of R a = b: with these weights the step is exact for polynomials (theorem 3.1, eq. 5)."""
    r = torch.stack(list(offsets), -1)
    still = h == 0  # modes whose SNR stands still take no step
    h, r = torch.where(still, 1.0, h), torch.where(still[..., None], torch.arange(-1.0, len(offsets) - 1).flip(0), r)
    matrix = torch.stack([r**n for n in range(len(offsets))], -2)
    phi = torch.expm1(-h) / -h - 1
    right = []
    for n in range(1, len(offsets) + 1):
        right.append(phi * math.factorial(n) / torch.expm1(-h))
        phi = phi / -h - 1 / math.factorial(n + 1)
    return list(torch.linalg.solve(matrix, torch.stack(right, -1)).unbind(-1))
