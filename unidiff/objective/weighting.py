"""Weights of the denoising loss over time.

For a fixed state an error in x0 fixes the errors in eps and in the network's own target:
|eps error| = (alpha / sigma) |x0 error| and |target error| = (|determinant| / sigma) |x0 error|. So one weight, on the
squared error of the target, expresses every weighting for every parameterization.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.objective.base import entry_below
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale, fresh_noise_fraction

__all__ = ["EpsilonWeighting", "LikelihoodWeighting", "MinSNR", "UniformWeighting", "VLBWeighting", "Weighting"]


@dataclass(frozen=True)
class Weighting(PlainArguments, ABC):
    """A weight on the squared error of the predicted quantity, as a function of time."""

    @abstractmethod
    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """The weight at this level, non-negative, shaped like its coefficients."""

    def weight_on(self, process: Process, parameterization: Parameterization, level: Level, like: Tensor) -> Scale:
        """The weight at a level of this process, of states `like`: by default that of the level alone."""
        return self.weight(parameterization, level)

    def root(
        self, parameterization: Parameterization, level: Level, like: Tensor, process: Process | None = None
    ) -> Scale:
        """The square root of the weight: one number, or a tensor with as many axes as the state `like`."""
        if process is None:
            weight = self.weight(parameterization, level)
        else:
            weight = self.weight_on(process, parameterization, level, like)
        shape = getattr(weight, "shape", ())
        if len(shape) not in (0, like.ndim):  # (B,) would be broadcast over the columns of an image
            problem = f"weights must be a number or have {like.ndim} axes like the state, got shape {tuple(shape)}"
            raise ParameterError("weighting", problem)
        return weight**0.5


@dataclass(frozen=True)
class UniformWeighting(Weighting):
    """1: the plain squared error of what the network predicts. With Eps it is L_simple (Ho et al. 2020, eq. 14)."""

    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """1 at every level."""
        return 1.0


@dataclass(frozen=True)
class EpsilonWeighting(Weighting):
    """sigma^2 on the score's squared error, which is 1 on that of eps (Song & Ermon 2019, eq. 6; thesis eq. 3.20)."""

    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """(alpha / determinant)^2."""
        return (level.alpha / parameterization.determinant(level)) ** 2


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) on the squared error of x0 (Hang et al. 2023, section 3.4).

    Args:
        gamma: The ceiling of the weight, above 0; the paper's value is 5.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        require(0 < self.gamma < math.inf, "gamma", self.gamma, "a number > 0")

    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """min(SNR, gamma) (sigma / determinant)^2."""
        snr = (level.alpha / level.sigma) ** 2
        capped = min(snr, self.gamma) if isinstance(snr, float) else snr.clamp(max=self.gamma)
        return capped * (level.sigma / parameterization.determinant(level)) ** 2


@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    """g(t)^2 on the score's squared error: the likelihood weighting (Song, Durkan, Murray & Ermon 2021, theorem 1).

    It is -SNR'(t) on the squared error of x0. Half the loss bounds the Kullback-Leibler divergence of the samples of
    `EulerMaruyama(eta=1)` in many steps from the data, per pixel, up to a constant.
    """

    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """-SNR'(t) (sigma / determinant)^2, from the rates of the level."""
        determinant = parameterization.determinant(level)
        # Quotients that are bounded where alpha vanishes: -SNR' = 2 alpha (alpha sigma' - alpha' sigma) / sigma^3.
        turn = (level.alpha * level.sigma_rate - level.alpha_rate * level.sigma) / determinant
        weight = 2 * (level.alpha / determinant) * turn / level.sigma
        return weight.clamp(min=0) if isinstance(weight, Tensor) else max(weight, 0.0)  # the SNR falls, to rounding


@dataclass(frozen=True)
class VLBWeighting(Weighting):
    """The weights of the variational bound of a chain of fixed variance (Ho et al. 2020, eq. 12; thesis eq. 2.93).

    L beta^2 / (2 sigma^2 alpha (1 - alpha-bar)) on the squared error of eps, in the paper's symbols, for a table of L
    entries: the loss is the bound in nats per pixel, less what does not depend on the model. sigma^2 is the variance of
    a step; that of the first entry, the decoder's, is beta_1. On a process without a table it is the limit of many
    steps, half of `LikelihoodWeighting`.

    Args:
        variance_interpolation: sigma^2 on a logarithmic scale, from beta-tilde (0) to beta (1); see `Ancestral`.
    """

    variance_interpolation: float = 0.0

    def __post_init__(self) -> None:
        share = self.variance_interpolation
        require(0 <= share <= 1, "variance_interpolation", share, "a number from 0 (small) to 1 (large)")

    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """That of many steps, -SNR'(t) (sigma / determinant)^2 / 2."""
        return LikelihoodWeighting().weight(parameterization, level) / 2

    def weight_on(self, process: Process, parameterization: Parameterization, level: Level, like: Tensor) -> Scale:
        """L (SNR_s - SNR_t) / (2 r) (sigma_t / determinant)^2 for s the entry below t, and the step's variance r."""
        table = process.native_times()
        if table is None:
            return self.weight(parameterization, level)
        s, first = entry_below(process, level, like)
        first = first.reshape(-1, *[1] * (like.ndim - 1))
        on_x0 = (level.sigma / parameterization.determinant(level)) ** 2
        r = (level.sigma / s.sigma) ** (2 * self.variance_interpolation)
        step = (s.alpha / s.sigma) ** 2 * fresh_noise_fraction(level, s) / r
        return len(table) / 2 * torch.where(first, 1 / level.sigma**2, step) * on_x0
