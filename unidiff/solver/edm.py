"""The stochastic sampler of Karras et al. 2022."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.noise import Noise
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level, axpby
from unidiff.solver.base import Solver, require_positive_alpha
from unidiff.solver.exponential import ddim_step, log_ratio, log_ratios

__all__ = ["EDMStochastic"]


@dataclass(frozen=True)
class EDMStochastic(Solver):
    """Heun's method for d(u / alpha) / dq = eps, q = sigma / alpha, with noise added before each step.

    Karras et al. 2022, algorithm 2, for any process: theirs has alpha = 1. Two evaluations a step, one for the last.
    With churn 0 it is their deterministic sampler (algorithm 1), Heun's method in sigma. Noise is never raised above
    the level of t = 1, the largest in training; a step from alpha = 0 is of first order.

    Args:
        churn: The paper's S_churn, at least 0: noise per step grows by churn / N, at most by sqrt(2) - 1.
        sigma_min: S_tmin, the smallest sigma / alpha at which noise is added; at least 0.
        sigma_max: S_tmax, the largest, at least sigma_min; None for no limit.
        noise_scale: S_noise, standard deviation of the added noise, above 0.
    """

    churn: float = 40.0
    sigma_min: float = 0.0
    sigma_max: float | None = None
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.churn < math.inf, "churn", self.churn, "a number >= 0")
        require(0 <= self.sigma_min < math.inf, "sigma_min", self.sigma_min, "a number >= 0")
        allowed = f"a number >= sigma_min ({self.sigma_min}), or null"
        require(self.sigma_max is None or self.sigma_max >= self.sigma_min, "sigma_max", self.sigma_max, allowed)
        require(0 < self.noise_scale < math.inf, "noise_scale", self.noise_scale, "a number > 0")

    def check(self, process: Process) -> None:
        if process.basis.shape:
            require_positive_alpha(process, "EDMStochastic steps in u / alpha", "Use ExponentialAdams or DPMSolver.")
        if self.churn > 0:
            require_one_snr(process, "solver", "Churn needs one SNR for all modes", "Use churn=0, or Ancestral.")

    @property
    def convergence(self) -> int | None:
        """2 without noise; no order in distribution has been proved with noise."""
        return 2 if self.churn == 0 else None

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        gamma = min(self.churn / len(levels), math.sqrt(2) - 1)
        ceiling = min(levels, key=lambda level: level.log_snr) if gamma > 0 else levels[0]
        for (t, s), singular in zip(pairwise(levels), map(any, pairwise(log_ratios(levels)[1]))):
            u, t = self._churned(denoiser, u, t, gamma, ceiling, noise)
            start = denoiser(u, t, **cond)
            first, u = start.eps, ddim_step(s, start)
            if not singular:
                half = (s.sigma - s.alpha * t.sigma / t.alpha) / 2  # alpha_s (q_s - q_t) / 2
                u = axpby(1.0, axpby(1.0, u, half, denoiser(u, s, **cond).eps), -half, first)
            yield u
        u, t = self._churned(denoiser, u, levels[-1], gamma, ceiling, noise)
        yield denoiser(u, t, **cond).x0

    def _churned(
        self, denoiser: Denoiser, u: Tensor, t: Level, gamma: float, ceiling: Level, noise: Noise
    ) -> tuple[Tensor, Level]:
        """The state with more noise, and its level (algorithm 2, lines 4-6)."""
        sigma_max = math.inf if self.sigma_max is None else self.sigma_max
        if gamma == 0 or t.log_snr == -math.inf or not self.sigma_min <= t.sigma / t.alpha <= sigma_max:
            return u, t
        higher = min(log_ratio(t) + math.log1p(gamma), log_ratio(ceiling))
        if higher <= log_ratio(t):
            return u, t
        raised = denoiser.process.level(denoiser.process.time_at(torch.tensor(-2 * higher, dtype=torch.float64)))
        ratio = raised.alpha / t.alpha
        added = (raised.sigma**2 - (ratio * t.sigma) ** 2) ** 0.5
        return ratio * u + (added * self.noise_scale) * noise(u), raised
