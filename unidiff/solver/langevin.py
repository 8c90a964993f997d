"""Langevin steps: the predictor-corrector of Song et al. 2021, and annealed Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level, axpby
from unidiff.solver.base import OneStep, require_positive_alpha
from unidiff.solver.sde import ReverseDiffusion

__all__ = ["AnnealedLangevin", "PredictorCorrector"]


@dataclass(frozen=True)
class PredictorCorrector(OneStep):
    """A step of any solver, then Langevin steps at the level reached (Song et al. 2021, algorithms 2 to 5).

    A Langevin step is u + e score + sqrt(2 e) z with e = 2 r^2 (snr |z| / |score|)^2 and r = alpha_t / alpha_s, which
    is 1 for VE and sqrt(1 - beta) for VP. The norms are those of each sample; the authors' code averages them over the
    batch, so that samples depend on each other.

    Args:
        predictor: The solver whose steps are corrected.
        steps: Langevin steps after each of them, at least 1.
        snr: The paper's signal-to-noise ratio r, above 0: 0.16 for its VE models, 0.01 for VP.
    """

    predictor: OneStep = field(default_factory=ReverseDiffusion)
    steps: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)
        require(0 < self.snr < 1, "snr", self.snr, "a number in (0, 1); the chain diverges at 1")

    def check(self, process: Process) -> None:
        self.predictor.check(process)
        if process.basis.shape:
            require_positive_alpha(process, "PredictorCorrector divides by alpha", "Use Ancestral.")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        u = self.predictor.step(denoiser, u, t, s, noise, **cond)
        for _ in range(self.steps):
            score, z = denoiser(u, s, **cond).score, noise(u)
            ratio = (z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)).reshape(-1, *[1] * (u.ndim - 1))
            e = 2 * (t.alpha / s.alpha * self.snr * ratio) ** 2
            u = u + e * score + (2 * e).sqrt() * z  # algorithms 4 and 5
        return u


@dataclass(frozen=True)
class AnnealedLangevin(OneStep):
    """Langevin steps at every noise level of the grid, from the noisiest down.

    Song & Ermon 2019, algorithm 1; thesis algorithm 3. At a level with noise scale sigma_i the paper's step size is
    epsilon sigma_i^2 / sigma_L^2, sigma_L the smallest scale. Written with the predicted noise, u <- u - (k/2) sigma_i
    eps + sqrt(k) sigma_i z with k = epsilon / sigma_L^2: the same k at every level. On a process with alpha < 1 the
    steps are taken in u / alpha, where it is an NCSN with noise scales sigma / alpha.

    The paper's chain is biased: around a single data point its stationary variance is sigma_i^2 / (1 - k/4) instead of
    sigma_i^2. Choose k well below 1.

    Args:
        steps_per_level: T, Langevin steps at each level, at least 1.
        step_size: epsilon, the step at the smallest level, in units of the data squared; above 0. At k = 4 the chain
            diverges.
        denoise: End with one denoise, as every other solver does (Song & Ermon 2020, section 4; Jolicoeur-Martineau et
            al. 2021). Without it the samples contain noise of scale sigma_L, as in the original algorithm.
    """

    steps_per_level: int = 100
    step_size: float = 2e-5
    denoise: bool = True

    def __post_init__(self) -> None:
        require_whole("steps_per_level", self.steps_per_level)
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "a number > 0")

    def _k(self, process: Process) -> float:
        smallest = process.level(process.t_min)
        # Where modes differ, the one with the least noise: no mode takes a longer step.
        return self.step_size * float(torch.as_tensor(smallest.alpha / smallest.sigma, dtype=torch.float64).max()) ** 2

    def check(self, process: Process) -> None:
        limit = 4 * self.step_size / self._k(process)
        require(self._k(process) < 4, "step_size", self.step_size, f"less than {limit:.3g}, where the chain diverges")
        require_positive_alpha(process, "AnnealedLangevin steps in u / alpha", "Use DDIM or Ancestral.")

    def _relax(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        k = self._k(denoiser.process)
        for _ in range(self.steps_per_level):
            mean = denoiser(u, t, **cond).mix(0.0, -0.5 * k * t.sigma, 1.0, u)
            u = axpby(1.0, mean, k**0.5 * t.sigma, noise(u))  # algorithm 3, line 6
        return u

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        return s.alpha / t.alpha * self._relax(denoiser, u, t, noise, **cond)

    def finish(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        u = self._relax(denoiser, u, t, noise, **cond)
        return super().finish(denoiser, u, t, noise, **cond) if self.denoise else u / t.alpha
