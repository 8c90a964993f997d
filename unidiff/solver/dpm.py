"""DPM-Solver++ (Lu et al. 2022b): exponential integrators for the data prediction, in lambda = log(alpha / sigma)."""

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
from unidiff.solver.exponential import ddim_step, log_ratio, log_ratios, safe_divide, weighted_sum
from unidiff.solver.order import DATA, full_order, lowered_at_the_end, values_per_step

__all__ = ["DPMSolver", "DPMSolverSinglestep"]


@dataclass(frozen=True)
class DPMSolver(Solver):
    """DPM-Solver++, multistep, for the flow (2M, 3M) and for the reverse SDE (SDE-DPM-Solver++).

    Lu et al. 2022b, algorithm 2 and section 5. The third order is the same expansion with one more term; the authors'
    code takes half of that term, which gives order 2. As published, the first steps are of lower order and the run
    ends with one denoise, of first order. Not as published, the order also falls where the polynomial would be
    continued too far (`unidiff.solver.order`).

    Args:
        order: Values of x0 that a step uses, 1 to 3. With 1 it is DDIM(eta) at eta = 0 and 1, but not in between.
        eta: Share of the process's own noise: 0 is the flow, 1 the reverse SDE of the paper. In between it is eta in
            the SDE, whose step h in lambda draws noise of variance sigma_s^2 (1 - e^{-2 eta^2 h}).
        published_orders: Whether the order falls as published instead: below 15 evaluations, in the last steps.
    """

    order: int = 2  # type: ignore[misc]
    eta: float = 0.0
    published_orders: bool = False

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
        log_q, zero_alpha = log_ratios(levels)
        counts = iter(self._counts(log_q[[not zero for zero in zero_alpha]]))
        for (t, s), (no_data, no_data_after) in zip(pairwise(levels), pairwise(zero_alpha)):
            prediction, count = denoiser(u, t, **cond), 0
            if not no_data:  # else lambda is -infinity
                count = self.order if no_data_after else next(counts)
                values, nodes = [prediction.x0, *values][: self.order], [t, *nodes][: self.order]
            if no_data_after:
                u = ddim_step(s, prediction)
            else:
                u = self._mean(u, prediction.x0, t, s, nodes[:count], values[:count])
            if self.eta > 0:
                h = log_ratio(t) - log_ratio(s)
                u = axpby(1.0, u, s.sigma * (-expm1(-2 * self.eta**2 * h)) ** 0.5, noise(u))
            yield u
        yield denoiser(u, levels[-1], **cond).x0

    def _counts(self, log_q: Tensor) -> list[int]:
        """The number of values that each step uses."""
        if self.published_orders:
            rule = lowered_at_the_end if len(log_q) < 15 else full_order
            return rule(len(log_q) - 1, self.order)
        return values_per_step(log_q, self.order, DATA)

    def _mean(self, u: Tensor, x0: Tensor, t: Level, s: Level, nodes: list[Level], values: list[Tensor]) -> Tensor:
        """The mean at s."""
        h = log_ratio(t) - log_ratio(s)
        rate = 1 + self.eta**2
        k = rate * h
        phi1 = -expm1(-k)  # the integral of rate e^y over the step
        # sigma_s / sigma_t e^{-eta^2 h}: the deterministic and the stochastic part of the decay.
        decay = s.sigma / t.sigma * (1 + expm1(-(self.eta**2) * h) if self.eta > 0 else 1.0)
        a = s.alpha * phi1
        if len(values) < 2:
            return weighted_sum([decay, a], [u, x0])
        h0 = log_ratio(nodes[1]) - log_ratio(t)
        r0 = safe_divide(h, h0)  # x0 changes by r0 (x0 - values[1]) in the step, if it goes on as in the one before
        if len(values) == 2:
            half = 0.5 * a * r0
            return weighted_sum([decay, a + half, -half], [u, x0, values[1]])  # algorithm 2, line 9
        h1 = log_ratio(nodes[2]) - log_ratio(nodes[1])
        r1 = safe_divide(h, h1)
        # With r in [0, 1] along the step, x0 = values[0] + slope r + curvature r^2. The integrals of r and
        # r^2 against e^y are phi2 and 1 - 2 phi2 / k.
        phi2 = 1 - safe_divide(phi1, k)
        b, c = s.alpha * phi2, s.alpha * (1 - 2 * safe_divide(phi2, k))
        # The bend D = r0 (x0 - values[1]) - r1 (values[1] - values[2]) enters both, slope = r0 (x0 - values[1]) +
        # h0 / (h0 + h1) D and curvature = h / (h0 + h1) D.
        d = b * safe_divide(h0, h0 + h1) + c * safe_divide(h, h0 + h1)
        return weighted_sum([decay, a + (b + d) * r0, -(b + d) * r0 - d * r1, d * r1], [u, x0, *values[1:]])


@dataclass(frozen=True)
class DPMSolverSinglestep(OneStep):
    """DPM-Solver++, singlestep: as many evaluations a step as its order, at intermediate times, and no memory.

    Lu et al. 2022b, algorithm 1 (2S); the third order is algorithm 2 of Lu et al. 2022a, for the data prediction. With
    noise it is the same midpoint rule for the reverse SDE: the noise of the first half of a step enters the state in
    the middle, and with what is added in the second half that of the whole step.

    Args:
        order: Evaluations a step, 1 to 3, with noise 1 or 2. With 1 it is DDIM(eta) at eta = 0 and 1.
        eta: Share of the process's own noise, from 0 to 1; see `DPMSolver`.
    """

    order: int = 2  # type: ignore[misc]
    eta: float = 0.0

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 3)
        require(0 <= self.eta <= 1, "eta", self.eta, "a number in [0, 1]")
        require(self.eta == 0 or self.order < 3, "order", self.order, "1 or 2 where eta > 0")

    def check(self, process: Process) -> None:
        if self.order > 1:
            reason = f"The intermediate times of {type(self).__name__} need one log SNR for all modes"
            require_one_snr(process, "solver", reason, "Use DPMSolver.")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        start = denoiser(u, t, **cond)
        if self.order == 1 or -math.inf in (t.log_snr, s.log_snr):  # from alpha = 0 lambda has no midpoint
            if self.eta > 0:
                return axpby(1.0, self._mean(u, start.x0, t, s), self._spread(t, s), noise(u))
            return ddim_step(s, start)
        process, h = denoiser.process, log_ratio(t) - log_ratio(s)

        def between(r: float) -> Level:
            log_snr = torch.tensor(t.log_snr + 2 * r * h, dtype=torch.float64)
            return process.level(process.time_at(log_snr))

        def towards(at: Level, r: float) -> Tensor:
            return start.mix(-at.alpha * expm1(-r * h), 0.0, at.sigma / t.sigma, u)

        if self.order == 2:
            middle = between(0.5)
            if self.eta > 0:
                drawn = self._spread(t, middle) * noise(u)
                x0 = denoiser(self._mean(u, start.x0, t, middle) + drawn, middle, **cond).x0
                rest = axpby(self._decay(middle, s), drawn, self._spread(middle, s), noise(u))
                return self._mean(u, x0, t, s) + rest
            x0 = denoiser(towards(middle, 0.5), middle, **cond).x0  # r = 1/2: D is the value in the middle
            return axpby(s.sigma / t.sigma, u, -s.alpha * expm1(-h), x0)
        first, second = between(1 / 3), between(2 / 3)
        rise = denoiser(towards(first, 1 / 3), first, **cond).x0 - start.x0
        phi2 = expm1(-2 / 3 * h) / (2 / 3 * h) + 1
        rise = denoiser(towards(second, 2 / 3) + (2 * second.alpha * phi2) * rise, second, **cond).x0 - start.x0
        phi2 = expm1(-h) / h + 1
        return towards(s, 1.0) + (1.5 * s.alpha * phi2) * rise

    def _decay(self, t: Level, s: Level) -> Scale:
        """What is left of the state in a step with noise: sigma_s / sigma_t e^{-eta^2 h}."""
        return s.sigma / t.sigma * (1 + expm1(-(self.eta**2) * (log_ratio(t) - log_ratio(s))))

    def _mean(self, u: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
        """The mean at s, for one x0 along the step."""
        gain = -s.alpha * expm1(-(1 + self.eta**2) * (log_ratio(t) - log_ratio(s)))
        return weighted_sum([self._decay(t, s), gain], [u, x0])

    def _spread(self, t: Level, s: Level) -> Scale:
        """The standard deviation of the noise of a step."""
        scaled: Scale = s.sigma * (-expm1(-2 * self.eta**2 * (log_ratio(t) - log_ratio(s)))) ** 0.5
        return scaled
