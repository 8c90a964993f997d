"""DDIM: the same marginals as the ancestral sampler, with less or no noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.noise import Noise
from unidiff.process.level import Level, axpby, fresh_noise_fraction
from unidiff.solver.base import OneStep
from unidiff.solver.exponential import ddim_step

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(OneStep):
    """Denoising diffusion implicit models (Song, Meng & Ermon 2021, eq. 12 and 16), on any process and any grid.

    Args:
        eta: Share of the process's own reverse noise: 0 is deterministic, 1 is Ancestral with the small variance.
    """

    eta: float = 0.0
    order: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "eta", self.eta, "a number in [0, 1]")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        prediction = denoiser(u, t, **cond)
        if self.eta == 0:
            return prediction.mix(s.alpha, s.sigma)
        fresh = self.eta**2 * fresh_noise_fraction(t, s)  # fraction of the variance at s drawn anew: (16) / sigma_s^2
        return axpby(1.0, ddim_step(s, prediction, fresh), s.sigma * fresh**0.5, noise(u))
