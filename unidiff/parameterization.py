"""What a network predicts: one combination a x0 + b eps. Two numbers define a parameterization; the rest follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from unidiff.errors import ParameterError
from unidiff.process.base import Level, Process, Scale, combine

__all__ = ["X0", "Eps", "Parameterization", "Prediction", "Score", "V"]


class Prediction(NamedTuple):
    """What a denoiser says of a state: the expected data and the expected noise, with u = alpha x0 + sigma eps.

    Attributes:
        x0: Expected clean state E[u_0 | u_t], (B, *modes).
        eps: Expected noise E[eps | u_t], (B, *modes).
        level: The time and coefficients it was made at.
    """

    x0: Tensor
    eps: Tensor
    level: Level

    @property
    def score(self) -> Tensor:
        """Gradient of the log density of u_t: -eps / sigma (Tweedie's formula; thesis eq. 3.29)."""
        return -self.eps / self.level.sigma

    @property
    def v(self) -> Tensor:
        """The v of Salimans & Ho 2022: alpha eps - sigma x0."""
        return self.level.alpha * self.eps - self.level.sigma * self.x0


@dataclass(frozen=True)
class Parameterization(ABC):
    """The quantity a x0 + b eps that a network predicts."""

    @abstractmethod
    def coefficients(self, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
        """The pair (a, b) at data scale alpha and noise scale sigma."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The quantity itself, (B, *modes), from the data and noise that made a state."""
        a, b = self.coefficients(level.alpha, level.sigma)
        return combine(a, x0, b, eps)

    def determinant(self, level: Level) -> Scale:
        """Determinant alpha b - sigma a of the system that `solve` inverts; zero where it is ill posed."""
        a, b = self.coefficients(level.alpha, level.sigma)
        return level.alpha * b - level.sigma * a

    def scale(self, level: Level) -> Scale:
        """Root mean square of the quantity for data and noise of unit variance, sqrt(a^2 + b^2)."""
        a, b = self.coefficients(level.alpha, level.sigma)
        return (a**2 + b**2) ** 0.5

    def solve(self, output: Tensor, u: Tensor, level: Level) -> Prediction:
        """The data and noise that explain state and output: [u; output] = [[alpha, sigma], [a, b]] [x0; eps].

        Args:
            output: The predicted quantity, (B, *modes).
            u: The state it was predicted from, (B, *modes).
            level: Time and coefficients of the state.
        """
        alpha, sigma = level.alpha, level.sigma
        a, b = self.coefficients(alpha, sigma)
        det = alpha * b - sigma * a
        x0 = combine(b / det, u, -sigma / det, output)
        eps = combine(alpha / det, output, -a / det, u)
        return Prediction(x0, eps, level)

    def check(self, process: Process) -> None:
        """Refuse a process with which this parameterization is ill posed.

        Raises:
            ParameterError: If the determinant vanishes at the noisiest time.
        """
        if self.determinant(process.level(1.0)) == 0:
            raise ParameterError(
                "parameterization",
                f"{type(self).__name__} cannot be converted to data at t = 1, where {process!r} is pure noise "
                "(alpha = 0). Use V or X0.",
            )


@dataclass(frozen=True)
class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020, eq. 12)."""

    def coefficients(self, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
        """(0, 1)."""
        return 0.0, 1.0


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the clean data."""

    def coefficients(self, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
        """(1, 0)."""
        return 1.0, 0.0


@dataclass(frozen=True)
class Score(Parameterization):
    """The network predicts the score, grad log p(u_t) = -eps / sigma (Song & Ermon 2019; thesis eq. 3.29)."""

    def coefficients(self, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
        """(0, -1 / sigma)."""
        return 0.0, -1.0 / sigma


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts v = alpha eps - sigma x0 (Salimans & Ho 2022, section 4 and appendix D)."""

    def coefficients(self, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
        """(-sigma, alpha)."""
        return -sigma, alpha
