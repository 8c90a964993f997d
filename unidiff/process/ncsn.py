"""NCSN: data plus noise of geometrically growing scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require, require_whole
from unidiff.process.base import Process

__all__ = ["NCSN"]


@dataclass(frozen=True)
class NCSN(Process):
    """q(x_t | x_0) = N(x_0, sigma_i^2 I) on a geometric ladder of L noise scales (Song & Ermon 2019, section 3.2).

    Level i = 1 (least noise), ..., L (most) sits at t = i / L. Song & Ermon and algorithm 3 of Sedykh's thesis count
    the levels the other way round, from the noisiest. Between levels sigma stays geometric; alpha is 1.

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
        require(0 < self.sigma_min < math.inf, "sigma_min", self.sigma_min, "a number > 0")
        require(
            self.sigma_min < self.sigma_max < math.inf,
            "sigma_max",
            self.sigma_max,
            f"a number above sigma_min ({self.sigma_min})",
        )
        require_whole("levels", self.levels, 2, 1_000_000)

    def log_alpha(self, t: Tensor) -> Tensor:
        """0: the data keep their scale."""
        return torch.zeros_like(t, dtype=torch.float64)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: linear in t, log sigma_min at t = 1 / L and log sigma_max at t = 1."""
        fraction = (t.to(torch.float64) * self.levels - 1) / (self.levels - 1)
        return math.log(self.sigma_min) + fraction * math.log(self.sigma_max / self.sigma_min)

    @property
    def t_min(self) -> float:
        """The level of least noise, 1 / L."""
        return 1 / self.levels

    def native_times(self) -> Tensor:
        """The levels, i / L for i = 1, ..., L."""
        return torch.arange(1, self.levels + 1, dtype=torch.float64) / self.levels
