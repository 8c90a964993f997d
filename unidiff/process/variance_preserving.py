"""The VP and sub-VP SDEs of Song et al. 2021, and the cosine schedule in continuous time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require
from unidiff.process.base import Process

__all__ = ["VPSDE", "CosineVP", "SubVPSDE"]


@dataclass(frozen=True)
class _LinearBeta(Process):
    """Drift -beta(t) u / 2 with beta(t) = beta_min + t (beta_max - beta_min).

    Args:
        beta_min: beta at t = 0, above 0; the paper's 0.1.
        beta_max: beta at t = 1, at least beta_min; the paper's 20.
        t_min: The smallest time at which a network is evaluated; 1e-3 in the paper's sampling (appendix C).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.beta_min < math.inf, "beta_min", self.beta_min, "a number > 0")
        allowed = f"a number >= beta_min ({self.beta_min})"
        require(self.beta_min <= self.beta_max < math.inf, "beta_max", self.beta_max, allowed)
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number in (0, 1)")

    def log_alpha(self, t: Tensor) -> Tensor:
        # Minus half the integral of beta from 0 to t: Song et al. 2021, eq. 33
        t = t.to(torch.float64)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def prior_scale(self) -> float:
        return 1.0  # sampling starts from N(0, I)


@dataclass(frozen=True)
class VPSDE(_LinearBeta):
    """du = -beta(t) u / 2 dt + sqrt(beta(t)) dW with beta(t) = beta_min + t (beta_max - beta_min).

    Song et al. 2021, eq. 11 and 32-33: the limit of DDPM's chain for T to infinity, alpha^2 + sigma^2 = 1.
    """

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(-torch.expm1(2 * self.log_alpha(t)))  # eq. 33


@dataclass(frozen=True)
class SubVPSDE(_LinearBeta):
    """The drift of VP with less noise: sigma = 1 - alpha^2 (Song et al. 2021, eq. 12 and 29).

    g^2 = beta(t) (1 - exp(-2 int_0^t beta)). Near t = 0 the noise scale is proportional to t.
    """

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(2 * self.log_alpha(t)))  # eq. 29, third line


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
        allowed = f"a number > log_snr_min ({self.log_snr_min})"
        require(self.log_snr_min < self.log_snr_max < math.inf, "log_snr_max", self.log_snr_max, allowed)
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number in (0, 1)")

    def _angle(self, t: Tensor) -> Tensor:
        start, end = math.atan(math.exp(-self.log_snr_max / 2)), math.atan(math.exp(-self.log_snr_min / 2))
        return start + t.to(torch.float64) * (end - start)

    def log_alpha(self, t: Tensor) -> Tensor:
        return self._angle(t).cos().log()

    def log_sigma(self, t: Tensor) -> Tensor:
        return self._angle(t).sin().log()

    def prior_scale(self) -> float:
        return 1.0  # sampling starts from N(0, I)
