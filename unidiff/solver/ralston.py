"""Ralston's method for the probability flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
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

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        steps = [*pairwise(levels)]
        between = denoiser.process.levels_at([_later(t, s) for t, s in steps], u.device)  # of all steps together
        for (t, s), middle in zip(steps, between):
            u = _step(denoiser, u, t, middle, s, **cond)
            yield u
        yield self.finish(denoiser, u, levels[-1], noise, **cond)

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        return _step(denoiser, u, t, denoiser.process.level(_later(t, s), u), s, **cond)


def _later(t: Level, s: Level) -> float:
    """The time at 2/3 of the step."""
    return float(t.time + 2 / 3 * (s.time - t.time))


def _step(denoiser: Denoiser, u: Tensor, t: Level, middle: Level, s: Level, **cond: Tensor) -> Tensor:
    h = s.time - t.time
    start = denoiser(u, t, **cond).velocity
    u = axpby(1.0, u, 2 / 3 * h, start)  # the state in between, from which 1/4 - 2/3 = -5/12 of this velocity is left
    end = denoiser(u, middle, **cond).mix(0.75 * h * middle.alpha_rate, 0.75 * h * middle.sigma_rate, 1.0, u)
    return axpby(1.0, end, -5 / 12 * h, start)
