"""Ancestral sampling: the published reverse chain of DDPM, on any process and any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.noise import Noise
from unidiff.process.level import Level, axpby, fresh_noise_fraction
from unidiff.renamed import renamed
from unidiff.solver.base import OneStep

__all__ = ["Ancestral"]


@renamed(variance="variance_interpolation")
@dataclass(frozen=True)
class Ancestral(OneStep):
    """Draw from q(u_s | u_t, x0) with x0 replaced by its prediction (Ho et al. 2020, algorithm 2; thesis algorithm 2).

    On the native grid of DDPM the step is the paper's. The thesis prints "z ~ N(0, I) if t > 0"; it must read t > 1, as
    in Ho et al.: the last step is a mean, and here the denoise that ends every run.

    Args:
        variance_interpolation: Where the variance lies between the small one, beta-tilde (0), and the large one, beta
            (1), on a logarithmic scale: Nichol & Dhariwal 2021, eq. 15; thesis eq. 4.1. Small is exact for data at a
            point, large for standard normal data. None is the learned variance, or small without one.
    """

    variance_interpolation: float | None = None
    order: ClassVar[int | None] = 1  # of the distribution of the final state

    def __post_init__(self) -> None:
        v = self.variance_interpolation
        require(v is None or 0 <= v <= 1, "variance_interpolation", v, "a number from 0 (small) to 1 (large), or None")

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        prediction = denoiser(u, t, **cond)
        v = self.variance_interpolation
        if v is None:
            v = 0.0 if prediction.variance_interpolation is None else prediction.variance_interpolation
        renewed = fresh_noise_fraction(t, s)  # beta_t / (1 - alpha-bar_t) of the paper
        # Ho et al. 2020, eq. (7): posterior mean. 1 - renewed is SNR_t / SNR_s, which is finite where alpha is 0.
        mean = prediction.mix(s.alpha * renewed, 0.0, s.sigma / t.sigma * (1 - renewed) ** 0.5, u)
        small, large = s.sigma * renewed**0.5, t.sigma * renewed**0.5  # square roots of beta-tilde and beta
        return axpby(1.0, mean, large**v * small ** (1 - v), noise(u))
