"""The process of Karras et al. 2022: data plus noise, time warped so that equal steps are their schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require
from unidiff.process.base import Process

__all__ = ["EDM"]


@dataclass(frozen=True)
class EDM(Process):
    """Data plus noise of scale sigma(t) = sigma_max t^rho.

    Karras et al. 2022, table 1, column "ours": their time is the noise scale itself, and their N steps are equal in
    sigma^(1 / rho) (eq. 5). Here the warp is part of the process, so `Uniform(N)` is their schedule and t_min =
    (sigma_min / sigma_max)^(1 / rho). With rho = 1, t is sigma / sigma_max. Their "noise distribution" is
    `LogNormal`, the `times` of an objective.

    Args:
        sigma_min: The smallest noise scale at which a network is evaluated, above 0.
        sigma_max: The noise scale at t = 1, above sigma_min.
        rho: The warp, above 0; larger values take shorter steps at low noise.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < math.inf, "sigma_min", self.sigma_min, "a number > 0")
        allowed = f"a number above sigma_min ({self.sigma_min})"
        require(self.sigma_min < self.sigma_max < math.inf, "sigma_max", self.sigma_max, allowed)
        require(0 < self.rho < math.inf, "rho", self.rho, "a number > 0")

    def log_alpha(self, t: Tensor) -> Tensor:
        """0: the data keep their scale."""
        return torch.zeros_like(t, dtype=torch.float64)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: rho log t + log sigma_max."""
        return self.rho * torch.log(t.to(torch.float64)) + math.log(self.sigma_max)

    @property
    def t_min(self) -> float:
        """Where sigma = sigma_min."""
        return float((self.sigma_min / self.sigma_max) ** (1 / self.rho))

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The times at which log SNR has the given values, in closed form; see `Process.time_at`."""
        log_sigma = log_snr.to("cpu", torch.float64) / -2
        return torch.exp((log_sigma - math.log(self.sigma_max)) / self.rho).clamp(max=1.0)
