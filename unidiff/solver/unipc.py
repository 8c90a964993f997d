"""UniPC: predictor and corrector of one family of exponential integrators (Zhao et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale
from unidiff.solver.base import Solver
from unidiff.solver.exponential import ddim_step, for_each_step, log_ratios, safe_divide, weighted_sum, with_states

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
        used = [i for i, zero in enumerate(zero_alpha) if not zero]
        path = [levels[i] for i in used]
        predictor = with_states(for_each_step(_predictor, log_q[used], self.order), path, u.device)
        corrector = with_states(for_each_step(_corrector, log_q[used], self.order), path, u.device)
        values: list[Tensor] = []  # x0 at the last levels, newest first
        before: Tensor | None = None  # the corrected state at the newest of them
        for i, t in enumerate(levels):
            prediction = denoiser(u, t, **cond)
            if before is not None:
                u = weighted_sum(next(corrector), [before, *values, prediction.x0])  # UniC
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


def _predictor(start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
    """The weights of x0 at the nodes, newest first, in a step of log(sigma / alpha) from start to end."""
    return _on_values(start - end, [safe_divide(start - node, start - end) for node in nodes[1:]])


def _corrector(start: Tensor, end: Tensor, nodes: Tensor) -> Tensor:
    """The same with the value at the end, which comes last."""
    offsets = [safe_divide(start - node, start - end) for node in nodes[1:]]
    return _on_values(start - end, [*offsets, torch.ones_like(start)])


def _on_values(h: Tensor, offsets: Sequence[Scale]) -> Tensor:
    """The weights of x0 itself from those of its differences D_j = x0_j - x0_0 over r_j, with (1 - e^-h)."""
    r = [torch.as_tensor(offset) for offset in offsets]
    weights = [torch.as_tensor(safe_divide(weight, offset)) for weight, offset in zip(_weights(h, r), r)]
    return -torch.expm1(-h) * torch.stack([1 - sum(weights, torch.zeros_like(h)), *weights])


def _weights(h: Tensor, offsets: Sequence[Tensor]) -> list[Tensor]:
    """The solution a of R a = b: with these weights the step is exact for polynomials (theorem 3.1, eq. 5).

    A single one is 1/2 as published.
    """
    if len(offsets) < 2:
        return [torch.full_like(h, 0.5)] * len(offsets)
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
