"""Langevin steps: at one noise level, annealed, and in the predictor-corrector of Song et al. 2021."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale, axpby
from unidiff.solver.base import OneStep, Solver, require_positive_alpha
from unidiff.solver.sde import ReverseDiffusion

__all__ = ["AnnealedLangevin", "Langevin", "PredictorCorrector"]


@dataclass(frozen=True)
class PredictorCorrector(OneStep):
    """A step of any solver, then Langevin steps at the level reached (Song et al. 2021, algorithms 2 to 5).

    A Langevin step at the level s is u + e score + sqrt(2 e) z with e = 2 r^2 (snr |z| / |score|)^2 and
    r = alpha_s / alpha_below, of s and the level below it in the grid, clean data below the last: 1 for VE, and for VP
    sqrt(1 - beta) with the beta of the entry s. A single `step`, which is told no level below, takes that of the step
    it has made, alpha_t / alpha_s. The norms are those of each sample; the authors' code averages them over the batch,
    so that samples depend on each other.

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
        return self._corrected(denoiser, u, s, t.alpha / s.alpha, noise, **cond)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        below = [*(level.alpha for level in levels[2:]), 1.0]
        for (t, s), alpha in zip(pairwise(levels), below):
            u = self.predictor.step(denoiser, u, t, s, noise, **cond)
            u = self._corrected(denoiser, u, s, s.alpha / alpha, noise, **cond)
            yield u
        yield self.finish(denoiser, u, levels[-1], noise, **cond)

    def _corrected(self, denoiser: Denoiser, u: Tensor, s: Level, ratio: Scale, noise: Noise, **cond: Tensor) -> Tensor:
        """The state after Langevin steps at its level s (algorithms 4 and 5; the square of `ratio` is their alpha)."""
        for _ in range(self.steps):
            score, z = denoiser(u, s, **cond).score, noise(u)
            norms = (z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)).reshape(-1, *[1] * (u.ndim - 1))
            e = 2 * (ratio * self.snr * norms) ** 2
            u = u + e * score + (2 * e).sqrt() * z
        return u


def _relative(step_size: float, level: Level) -> float:
    """k, a step size at a level in units of its noise squared; where modes differ, of the least noise of any mode."""
    return step_size * float(torch.as_tensor(level.alpha / level.sigma, dtype=torch.float64).max()) ** 2


def _check_step(solver: Solver, step_size: float, process: Process) -> None:
    """Raise a ParameterError for a step size with which the chain diverges, or if alpha = 0 at t = 1."""
    k = _relative(step_size, process.level(process.t_min))
    require(k < 4, "step_size", step_size, f"less than {4 * step_size / k:.3g}, where the chain diverges")
    require_positive_alpha(process, f"{type(solver).__name__} steps in u / alpha", "Use DDIM or Ancestral.")


def _langevin(denoiser: Denoiser, u: Tensor, t: Level, k: float, steps: int, noise: Noise, **cond: Tensor) -> Tensor:
    """The state after Langevin steps at one level."""
    for _ in range(steps):
        mean = denoiser(u, t, **cond).mix(0.0, -0.5 * k * t.sigma, 1.0, u)
        u = axpby(1.0, mean, k**0.5 * t.sigma, noise(u))  # thesis eq. 3.15; algorithm 3, line 6
    return u


@dataclass(frozen=True)
class Langevin(Solver):
    """Langevin steps at one noise level, the last of the grid, from the start of a run (thesis eq. 3.14 and 3.15).

    u + (epsilon / 2) score + sqrt(epsilon) z, in u / alpha. It is here to be compared: a chain does not pass between
    modes of the data that are further apart than their noise, so each keeps the share of samples that the start puts
    nearest to it, whatever its weight. `AnnealedLangevin` begins where the noise covers all modes.

    Args:
        steps: Langevin steps for each step of the grid, at least 1: `Uniform(n)` takes n times as many in all.
        step_size: epsilon, in units of the data squared, above 0; below four times the level's sigma^2 / alpha^2,
            where the chain diverges.
        denoise: End with one denoise; without it the samples contain the noise of the level.
    """

    steps: int = 100
    step_size: float = 2e-5
    denoise: bool = True

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "a number > 0")

    def check(self, process: Process) -> None:
        _check_step(self, self.step_size, process)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        last = levels[-1]
        k, u = _relative(self.step_size, last), last.alpha / levels[0].alpha * u
        for _ in levels[1:]:
            u = _langevin(denoiser, u, last, k, self.steps, noise, **cond)
            yield u
        u = _langevin(denoiser, u, last, k, self.steps, noise, **cond)
        yield denoiser(u, last, **cond).x0 if self.denoise else u / last.alpha


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
            diverges. The paper's 2e-5, for pixels in [0, 1]; its program steps twice as far, as 4e-5 does here.
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
        return _relative(self.step_size, process.level(process.t_min))

    def check(self, process: Process) -> None:
        _check_step(self, self.step_size, process)

    def _relax(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        return _langevin(denoiser, u, t, self._k(denoiser.process), self.steps_per_level, noise, **cond)

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        return s.alpha / t.alpha * self._relax(denoiser, u, t, noise, **cond)

    def finish(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        u = self._relax(denoiser, u, t, noise, **cond)
        return super().finish(denoiser, u, t, noise, **cond) if self.denoise else u / t.alpha
