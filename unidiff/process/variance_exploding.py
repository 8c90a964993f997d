"""Processes that add noise to unscaled data: VE of Song et al. 2021, NCSN, and the process of Karras et al. 2022."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require, require_whole
from unidiff.process.base import Process

__all__ = ["EDM", "NCSN", "VESDE"]


@dataclass(frozen=True)
class _VarianceExploding(Process):
    """alpha = 1, and a noise scale that grows to sigma_max."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        require(0 < self.sigma_min < math.inf, "sigma_min", self.sigma_min, "a number > 0")
        allowed = f"a number > sigma_min ({self.sigma_min})"
        require(self.sigma_min < self.sigma_max < math.inf, "sigma_max", self.sigma_max, allowed)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)


@dataclass(frozen=True)
class VESDE(_VarianceExploding):
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
        super().__post_init__()
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number in (0, 1)")

    def log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + t.to(torch.float64) * math.log(self.sigma_max / self.sigma_min)  # eq. 30


@dataclass(frozen=True)
class NCSN(_VarianceExploding):
    """q(x_t | x_0) = N(x_0, sigma_i^2 I) on a geometric ladder of L noise scales (Song & Ermon 2019, section 3.2).

    Level i = 1 (least noise), ..., L (most) is at t = i / L. Song & Ermon and algorithm 3 of Sedykh's thesis count the
    levels the other way round, from the noisiest. Between levels sigma stays geometric.

    Args:
        sigma_min: The smallest noise scale, in units of the data's [-1, 1]; above 0.
        sigma_max: The largest noise scale, above sigma_min. Song & Ermon 2020 (technique 1) advise the largest
            distance between two data points.
        levels: L, the number of noise scales, at least 2.
    """

    sigma_min: float = 0.01
    sigma_max: float = 1.0
    levels: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("levels", self.levels, 2, 1_000_000)

    def log_sigma(self, t: Tensor) -> Tensor:
        fraction = (t.to(torch.float64) * self.levels - 1) / (self.levels - 1)
        return math.log(self.sigma_min) + fraction * math.log(self.sigma_max / self.sigma_min)

    @property
    def t_min(self) -> float:
        return 1 / self.levels

    def native_times(self) -> Tensor:
        return torch.arange(1, self.levels + 1, dtype=torch.float64) / self.levels


@dataclass(frozen=True)
class EDM(_VarianceExploding):
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
        super().__post_init__()
        require(0 < self.rho < math.inf, "rho", self.rho, "a number > 0")

    def log_sigma(self, t: Tensor) -> Tensor:
        return self.rho * torch.log(t.to(torch.float64)) + math.log(self.sigma_max)

    @property
    def t_min(self) -> float:
        return float((self.sigma_min / self.sigma_max) ** (1 / self.rho))

    def time_at(self, log_snr: Tensor) -> Tensor:
        log_sigma = log_snr.to("cpu", torch.float64) / -2
        return torch.exp((log_sigma - math.log(self.sigma_max)) / self.rho).clamp(max=1.0)
