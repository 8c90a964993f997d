"""Multistep consistency sampling: denoise, and noise again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.noise import Noise
from unidiff.process.level import Level, axpby
from unidiff.solver.base import OneStep

__all__ = ["MultistepConsistency"]


@dataclass(frozen=True)
class MultistepConsistency(OneStep):
    """u_s = alpha_s x0 + sigma_s z, with x0 predicted at t and all of the noise new (Song et al. 2023, algorithm 1).

    For consistency models, whose x0 at any t is a sample: each step draws from the data anew. On any other model x0 is
    the mean of the data given u_t, and the samples have too little variance however many the steps are: it has no order
    of convergence. For a Gaussian of variance C, Var u_s = alpha_s^2 (alpha_t C / S_t)^2 Var u_t + sigma_s^2 with
    S = alpha^2 C + sigma^2.
    """

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        return axpby(s.alpha, denoiser(u, t, **cond).x0, s.sigma, noise(u))
