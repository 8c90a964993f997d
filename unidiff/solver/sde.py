"""The reverse-time stochastic differential equation (Anderson 1982; Song et al. 2021, eq. 6), discretised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level, axpby
from unidiff.solver.base import OneStep, require_positive_alpha

__all__ = ["EulerMaruyama", "ReverseDiffusion"]


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """du = (velocity - eta^2 g^2 score / 2) dt + eta g dW, one explicit step at a time, in t.

    At eta = 1 the reverse SDE of Song et al. 2021, eq. 6; at eta = 0 Euler on the probability flow, eq. 13; all of
    them have the same marginals (Karras et al. 2022, eq. 6; Huang et al. 2021).

    Args:
        eta: Share of the process's own noise, from 0 to 1.
    """

    eta: float = 1.0
    order: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "eta", self.eta, "a number in [0, 1]")

    def check(self, process: Process) -> None:
        if self.eta > 0:
            remedy = "Use Ancestral, DDIM(eta=1) or DPMSolver(eta=1), which take that step exactly."
            require_positive_alpha(process, "EulerMaruyama needs a finite drift and diffusion", remedy)

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        prediction = denoiser(u, t, **cond)
        h = s.time - t.time
        if self.eta == 0:
            return prediction.mix(h * t.alpha_rate, h * t.sigma_rate, 1.0, u)
        f = t.alpha_rate / t.alpha
        g2 = 2 * t.sigma * (t.sigma_rate - f * t.sigma)
        push = 0.5 * h * self.eta**2 * g2 / t.sigma  # score = -eps / sigma
        mean = prediction.mix(h * t.alpha_rate, h * t.sigma_rate + push, 1.0, u)
        return axpby(1.0, mean, self.eta * (g2 * -h) ** 0.5, noise(u))


@dataclass(frozen=True)
class ReverseDiffusion(OneStep):
    """The forward chain's own steps, reversed: u_s = (2 - r) u + q score + sqrt(q) z (Song et al. 2021, eq. 46).

    The forward transition from s to t is u_t = r u_s + sqrt(q) z with r = alpha_t / alpha_s and q = sigma_t^2 - r^2
    sigma_s^2; for VE r = 1 (algorithm 2), for VP r = sqrt(1 - beta), q = beta (algorithm 3).
    """

    order: ClassVar[int | None] = 1

    def check(self, process: Process) -> None:
        if process.basis.shape:
            require_positive_alpha(process, "ReverseDiffusion divides by alpha", "Use Ancestral.")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        r = t.alpha / s.alpha
        q = t.sigma**2 - r**2 * s.sigma**2
        mean = denoiser(u, t, **cond).mix(0.0, -q / t.sigma, 2 - r, u)
        return axpby(1.0, mean, q**0.5, noise(u))
