"""Exponential integrators for the data prediction in lambda = log(alpha / sigma).

DPM-Solver++ (Lu et al. 2022b), and UniPC (Zhao et al. 2023), a predictor and a corrector that share their evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level, Scale, axpby, expm1
from unidiff.solver.base import OneStep, Solver
from unidiff.solver.exponential import ddim_step, log_ratio, log_ratios, safe_divide, to_device, weighted_sum

__all__ = ["DPMSolver", "DPMSolverSinglestep", "UniPC"]


@dataclass(frozen=True)
class DPMSolver(Solver):
    """DPM-Solver++, multistep, for the flow (2M, 3M) and for the reverse SDE (SDE-DPM-Solver++).

    Lu et al. 2022b, algorithm 2 and section 5. The third order is the same expansion with one more term; the authors'
    code takes half of that term, which gives order 2. As published, the first steps are of lower order and the run
    ends with one denoise, of first order.

    Args:
        order: Values of x0 that a step uses, 1 to 3. With 1 it is DDIM(eta) at eta = 0 and 1, but not in between.
        eta: Share of the process's own noise: 0 is the flow, 1 the reverse SDE of the paper. In between it is eta in
            the SDE, whose step h in lambda draws noise of variance sigma_s^2 (1 - e^{-2 eta^2 h}).
    """

    order: int = 2  # type: ignore[misc]
    eta: float = 0.0

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 3)
        require(0 <= self.eta <= 1, "eta", self.eta, "a number in [0, 1]")

    @property
    def convergence(self) -> int | None:
        """The order; with noise, in distribution, at most 2: x0 along a random path is not smooth."""
        return self.order if self.eta == 0 else min(self.order, 2)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        values: list[Tensor] = []
        nodes: list[Level] = []
        for (t, s), (no_data, no_data_after) in zip(pairwise(levels), pairwise(log_ratios(levels)[1])):
            prediction = denoiser(u, t, **cond)
            if not no_data:  # else lambda is -infinity
                values, nodes = [prediction.x0, *values][: self.order], [t, *nodes][: self.order]
            u = ddim_step(s, prediction) if no_data_after else self._mean(u, prediction.x0, t, s, nodes, values)
            if self.eta > 0:
                h = log_ratio(t) - log_ratio(s)
                u = u + s.sigma * (-expm1(-2 * self.eta**2 * h)) ** 0.5 * noise(u)
            yield u
        yield denoiser(u, levels[-1], **cond).x0

    def _mean(self, u: Tensor, x0: Tensor, t: Level, s: Level, nodes: list[Level], values: list[Tensor]) -> Tensor:
        """The mean at s."""
        h = log_ratio(t) - log_ratio(s)
        rate = 1 + self.eta**2
        k = rate * h
        phi1 = -expm1(-k)  # the integral of rate e^y over the step
        # sigma_s / sigma_t e^{-eta^2 h}: the deterministic and the stochastic part of the decay.
        decay = s.sigma / t.sigma * (1 + expm1(-(self.eta**2) * h) if self.eta > 0 else 1.0)
        u = axpby(decay, u, s.alpha * phi1, x0)
        if len(values) < 2:
            return u
        h0 = log_ratio(nodes[1]) - log_ratio(t)
        slope = (x0 - values[1]) * safe_divide(h, h0)
        if len(values) == 2:
            return u + (0.5 * s.alpha * phi1) * slope  # algorithm 2, line 9
        h1 = log_ratio(nodes[2]) - log_ratio(nodes[1])
        before = (values[1] - values[2]) * safe_divide(h, h1)
        curvature = (slope - before) * safe_divide(h, h0 + h1)
        slope = slope + (slope - before) * safe_divide(h0, h0 + h1)
        phi2 = 1 - safe_divide(phi1, k)
        # With r in [0, 1] along the step, x0 = values[0] + slope r + curvature r^2. The integrals of r and
        # r^2 against e^y are phi2 and 1 - 2 phi2 / k.
        return u + (s.alpha * phi2) * slope + (s.alpha * (1 - 2 * safe_divide(phi2, k))) * curvature


@dataclass(frozen=True)
class DPMSolverSinglestep(OneStep):
    """DPM-Solver++, singlestep: as many evaluations a step as its order, at intermediate times, and no memory.

    Lu et al. 2022b, algorithm 1 (2S); the third order is algorithm 2 of Lu et al. 2022a, for the data prediction.

    Args:
        order: Evaluations a step, 1 to 3. With 1 it is DDIM.
    """

    order: int = 2  # type: ignore[misc]

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 3)

    def check(self, process: Process) -> None:
        if self.order > 1:
            reason = "The intermediate times of DPMSolverSinglestep need one log SNR for all modes"
            require_one_snr(process, "solver", reason, "Use DPMSolver.")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        start = denoiser(u, t, **cond)
        if self.order == 1 or -math.inf in (t.log_snr, s.log_snr):  # from alpha = 0 lambda has no midpoint
            return ddim_step(s, start)
        process, h = denoiser.process, log_ratio(t) - log_ratio(s)

        def between(r: float) -> Level:
            log_snr = torch.tensor(t.log_snr + 2 * r * h, dtype=torch.float64)
            return process.level(process.time_at(log_snr))

        def towards(at: Level, r: float) -> Tensor:
            return axpby(at.sigma / t.sigma, u, -at.alpha * expm1(-r * h), start.x0)

        if self.order == 2:
            middle = between(0.5)
            x0 = denoiser(towards(middle, 0.5), middle, **cond).x0  # r = 1/2: D is the value in the middle
            return axpby(s.sigma / t.sigma, u, -s.alpha * expm1(-h), x0)
        first, second = between(1 / 3), between(2 / 3)
        rise = denoiser(towards(first, 1 / 3), first, **cond).x0 - start.x0
        phi2 = expm1(-2 / 3 * h) / (2 / 3 * h) + 1
        rise = denoiser(towards(second, 2 / 3) + (2 * second.alpha * phi2) * rise, second, **cond).x0 - start.x0
        phi2 = expm1(-h) / h + 1
        return towards(s, 1.0) + (1.5 * s.alpha * phi2) * rise


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
