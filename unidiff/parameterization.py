"""What a network predicts: one combination a x0 + b eps. Two numbers define a parameterization; the rest follows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.noise_condition import LogSigma, NoiseCondition, Timestep
from unidiff.prediction import Inverse, Prediction, inverse
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale, axpby

__all__ = ["X0", "Eps", "Parameterization", "Preconditioned", "Prediction", "Score", "V", "Velocity"]


@dataclass(frozen=True)
class Parameterization(PlainArguments, ABC):
    """The quantity a x0 + b eps that a network predicts.

    Attributes:
        data_std: Standard deviation of the data that the network's input and output are scaled for.
    """

    data_std: ClassVar[float] = 1.0

    @abstractmethod
    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        """The pair (a, b) at a level."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The quantity itself, (B, *modes), from the data and noise that made a state."""
        a, b = self.coefficients(level)
        return axpby(a, x0, b, eps)

    def determinant(self, level: Level) -> Scale:
        """Determinant alpha b - sigma a of the system that `solve` inverts; zero where it is ill posed."""
        a, b = self.coefficients(level)
        return level.alpha * b - level.sigma * a

    def scale(self, level: Level) -> Scale:
        """Root mean square of the quantity, sqrt(a^2 data_std^2 + b^2)."""
        a, b = self.coefficients(level)
        return (a**2 * self.data_std**2 + b**2) ** 0.5

    def input_scale(self, level: Level) -> Scale:
        """Root mean square of the state, sqrt(alpha^2 data_std^2 + sigma^2)."""
        return (level.alpha**2 * self.data_std**2 + level.sigma**2) ** 0.5

    def noise_condition(self, process: Process) -> NoiseCondition:
        """How the noise level is passed to a network of this parameterization by default."""
        return Timestep()

    def solve(self, output: Tensor, u: Tensor, level: Level, variance: Tensor | None = None) -> Prediction:
        """The data and noise that explain state and output: [u; output] = [[alpha, sigma], [a, b]] [x0; eps].

        Args:
            output: The predicted quantity, (B, *modes).
            u: The state it was predicted from, (B, *modes).
            level: Time and coefficients of the state.
            variance: The `variance_interpolation` of the prediction.
        """
        return Prediction.from_inverse(output, u, level, self.inverse(level), variance)

    def inverse(self, level: Level) -> Inverse:
        """The matrix of this system over its determinant: alpha, sigma, a, b; what `solve` needs at a level."""
        return inverse(level, *self.coefficients(level))

    def check(self, process: Process) -> None:
        """Raise a ParameterError for a process with which this parameterization is ill posed at t = 1.

        The sine of the angle between the rows (alpha, sigma) and (a, b) of the system that `solve` inverts must be
        above 1e-6: state and output are divided by it, together with the rounding of float32.
        """
        level = process.level(1.0)
        a, b = self.coefficients(level)
        rows = (a**2 + b**2) * (level.alpha**2 + level.sigma**2)
        singular = torch.as_tensor(self.determinant(level) ** 2 <= 1e-12 * rows)
        if bool(singular.any()):
            modes, others = "", "V, X0, Velocity or Preconditioned"
            if singular.ndim:
                modes, others = f" in {int(singular.sum())} of {singular.numel()} modes", "X0, V or Preconditioned"
            problem = f"{type(self).__name__} cannot be converted to data at t = 1{modes} of {process!r}"
            raise ParameterError("parameterization", f"{problem}: too little signal is left. Use {others}.")


@dataclass(frozen=True)
class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020, eq. 12)."""

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        return 0.0, 1.0


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the clean data."""

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        return 1.0, 0.0


@dataclass(frozen=True)
class Score(Parameterization):
    """The network predicts the score, grad log p(u_t) = -eps / sigma (Song & Ermon 2019; thesis eq. 3.29)."""

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        return 0.0, -1.0 / level.sigma


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts v = alpha eps - sigma x0 (Salimans & Ho 2022, section 4 and appendix D)."""

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        return -level.sigma, level.alpha


@dataclass(frozen=True)
class Velocity(Parameterization):
    """The network predicts the velocity of the probability flow, alpha' x0 + sigma' eps.

    For FlowMatching it is eps - x0 (Lipman et al. 2023, eq. 23, with time running the other way).
    """

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        return level.alpha_rate, level.sigma_rate


@dataclass(frozen=True)
class Preconditioned(Parameterization):
    """The network predicts what is missing from the best linear denoiser, scaled to unit variance.

    Karras et al. 2022, eq. 7 and table 1: x0 = c_skip u + c_out F with c_skip = alpha s^2 / r^2, c_out = sigma s / r,
    r^2 = alpha^2 s^2 + sigma^2 the variance of the state and s = data_std. Their process has alpha = 1. On a
    variance-preserving process with s = 1 it is minus V. The network is passed their c_noise = log(sigma) / 4.

    Args:
        data_std: s, standard deviation of the data, above 0; the paper's value is 0.5.
    """

    data_std: float = 0.5  # type: ignore[misc]

    def __post_init__(self) -> None:
        require(0 < self.data_std < math.inf, "data_std", self.data_std, "a number > 0")

    def coefficients(self, level: Level) -> tuple[Scale, Scale]:
        r = self.input_scale(level)  # F = (x0 - c_skip u) / c_out
        return level.sigma / (self.data_std * r), -level.alpha * self.data_std / r

    def noise_condition(self, process: Process) -> NoiseCondition:
        try:
            (condition := LogSigma()).check(process)
        except ParameterError:  # log sigma is not finite, as at alpha = 0
            return super().noise_condition(process)
        return condition
