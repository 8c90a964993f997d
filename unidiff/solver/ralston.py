"""Ralston's method for the probability flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.noise import Noise
from unidiff.process.level import Level, axpby
from unidiff.solver.base import OneStep

__all__ = ["Ralston"]


@dataclass(frozen=True)
class Ralston(OneStep):
    """Two evaluations a step, at its beginning and at 2/3 of it, with weights 1/4 and 3/4, in t.

    Of all explicit two-stage methods of second order the one with the least bound on its error (Ralston 1962, section
    2); alpha = 2/3 in Karras et al. 2022, algorithm 3. Unlike Heun it does not evaluate the model at the end of a step.
    """

    order: ClassVar[int | None] = 2

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        h = s.time - t.time
        start = denoiser(u, t, **cond).velocity
        between = denoiser.process.level(float(t.time + 2 / 3 * h), u)
        u = axpby(1.0, u, 2 / 3 * h, start)  # from which the step to s starts: 1/4 - 2/3 = -5/12
        later = denoiser(u, between, **cond)
        end = later.mix(0.75 * h * between.alpha_rate, 0.75 * h * between.sigma_rate, 1.0, u)
        return axpby(1.0, end, -5 / 12 * h, start)
