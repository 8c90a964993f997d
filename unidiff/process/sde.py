"""Continuous processes: VP, sub-VP and VE of Song et al. 2021, and VP by a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require
from unidiff.process.base import Process

__all__ = ["VESDE", "VPSDE", "CosineVP", "SubVPSDE"]


@dataclass(frozen=True)
class _LinearBeta(Process):
    """Drift -beta(t) u / 2 with beta growing linearly: what VP and sub-VP share."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.beta_min < math.inf, "beta_min", self.beta_min, "a number > 0")
        allowed = f"a number of at least beta_min ({self.beta_min})"
        require(self.beta_min <= self.beta_max < math.inf, "beta_max", self.beta_max, allowed)
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number above 0 and below 1")

    def log_alpha(self, t: Tensor) -> Tensor:
        """Minus half the integral of beta from 0 to t."""
        t = t.to(torch.float64)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min  # Song et al. 2021, eq. 33

    def prior_scale(self) -> float:
        """1: sampling starts from N(0, I)."""
        return 1.0


@dataclass(frozen=True)
class VPSDE(_LinearBeta):
    """du = -beta(t) u / 2 dt + sqrt(beta(t)) dW with beta(t) = beta_min + t (beta_max - beta_min).

    Song et al. 2021, eq. 11 and 32-33: the limit of DDPM's chain for T to infinity, alpha^2 + sigma^2 = 1.

    Args:
        beta_min: beta at t = 0, above 0; the paper's 0.1.
        beta_max: beta at t = 1, at least beta_min; the paper's 20.
        t_min: The smallest time at which a network is evaluated; 1e-3 in the paper's sampling (appendix C).
    """

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: sigma^2 = 1 - alpha^2."""
        return 0.5 * torch.log(-torch.expm1(2 * self.log_alpha(t)))  # eq. 33


@dataclass(frozen=True)
class SubVPSDE(_LinearBeta):
    """The drift of VP with less noise: sigma = 1 - alpha^2 (Song et al. 2021, eq. 12 and 29).

    g^2 = beta(t) (1 - exp(-2 int_0^t beta)). Near t = 0 the noise scale is proportional to t.

    Args:
        beta_min: beta at t = 0, above 0; the paper's 0.1.
        beta_max: beta at t = 1, at least beta_min; the paper's 20.
        t_min: The smallest time at which a network is evaluated; 1e-3 in the paper's sampling (appendix C).
    """

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: sigma = 1 - alpha^2."""
        return torch.log(-torch.expm1(2 * self.log_alpha(t)))  # eq. 29, third line


@dataclass(frozen=True)
class VESDE(Process):
    """Data plus noise whose scale grows geometrically: sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    Song et al. 2021, eq. 9 and 30-31: the limit of NCSN for many levels. As there, the scale at t is sigma(t), not
    sqrt(sigma(t)^2 - sigma_min^2), which eq. 29 has: noise of scale sigma_min counts as part of the data.

    Args:
        sigma_min: Noise scale at t = 0, above 0; the paper's 0.01.
        sigma_max: Noise scale at t = 1, above sigma_min; the paper's 50, for pixels in [0, 1].
        t_min: The smallest time at which a network is evaluated; 1e-5 in the paper (appendix C).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < math.inf, "sigma_min", self.sigma_min, "a number > 0")
        allowed = f"a number above sigma_min ({self.sigma_min})"
        require(self.sigma_min < self.sigma_max < math.inf, "sigma_max", self.sigma_max, allowed)
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number above 0 and below 1")

    def log_alpha(self, t: Tensor) -> Tensor:
        """0: the data keep their scale."""
        return torch.zeros_like(t, dtype=torch.float64)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: linear in t."""
        return math.log(self.sigma_min) + t.to(torch.float64) * math.log(self.sigma_max / self.sigma_min)  # eq. 30


@dataclass(frozen=True)
class CosineVP(Process):
    """alpha = cos(theta), sigma = sin(theta), theta linear in t between two log SNRs.

    The cosine schedule of Nichol & Dhariwal 2021 in continuous time, cut at both ends (Kingma et al. 2021; the base of
    Hoogeboom & Salimans 2023, with log SNR from 10 to -10).

    Args:
        log_snr_min: Log SNR at t = 1, below log_snr_max.
        log_snr_max: Log SNR at t = 0.
        t_min: The smallest time at which a network is evaluated, in (0, 1).
    """

    log_snr_min: float = -10.0
    log_snr_max: float = 10.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        require(math.isfinite(self.log_snr_min), "log_snr_min", self.log_snr_min, "a finite number")
        allowed = f"a number above log_snr_min ({self.log_snr_min})"
        require(self.log_snr_min < self.log_snr_max < math.inf, "log_snr_max", self.log_snr_max, allowed)
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number above 0 and below 1")

    def _angle(self, t: Tensor) -> Tensor:
        start, end = math.atan(math.exp(-self.log_snr_max / 2)), math.atan(math.exp(-self.log_snr_min / 2))
        return start + t.to(torch.float64) * (end - start)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data, log cos(theta)."""
        return self._angle(t).cos().log()

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise, log sin(theta)."""
        return self._angle(t).sin().log()

    def prior_scale(self) -> float:
        """1: sampling starts from N(0, I)."""
        return 1.0
