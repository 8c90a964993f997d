"""The straight path from data to noise: flow matching, rectified flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require
from unidiff.process.base import Process

__all__ = ["FlowMatching"]


@dataclass(frozen=True)
class FlowMatching(Process):
    """u_t = (1 - t) u_0 + t eps: the conditional optimal-transport path.

    Lipman et al. 2023, eq. 20-23 with sigma_min = 0 and time running the other way (their t = 1 is data); rectified
    flow (Liu et al. 2023, eq. 1). At t = 1 alpha = 0: Eps and Score are rejected, Velocity, V, X0 and
    Preconditioned are well posed.

    Args:
        t_min: The smallest time at which a network is evaluated, in (0, 1).
    """

    t_min: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.t_min < 1, "t_min", self.t_min, "a number in (0, 1)")

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.to(torch.float64)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t.to(torch.float64))

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(t.to(torch.float64))
