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
from unidiff.parameterization import Parameterization
from unidiff.process.level import Level, Scale

__all__ = ["EpsilonWeighting", "MinSNR", "UniformWeighting", "Weighting"]


@dataclass(frozen=True)
class Weighting(PlainArguments, ABC):
    """A weight on the squared error of the predicted quantity, as a function of time."""

    @abstractmethod
    def weight(self, parameterization: Parameterization, level: Level) -> Scale:
        """The weight at this level, non-negative, shaped like its coefficients."""

    def root(self, parameterization: Parameterization, level: Level, like: Tensor) -> Scale:
        """The square root of the weight: one number, or a tensor with as many axes as the state `like`."""
        weight = self.weight(parameterization, level)
        shape = torch.as_tensor(weight).shape
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
