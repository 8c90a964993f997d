"""Noise tables for DDPM: the variances beta_1, ..., beta_T of its forward chain.

Every table is computed in float64. alpha-bar, the paper's cumulative product of 1 - beta, is the square of this
library's alpha.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require

__all__ = ["BetaTable", "Cosine", "Linear", "ScaledLinear", "Schedule", "Sigmoid", "ZeroTerminalSNR"]


@dataclass(frozen=True)
class Schedule(PlainArguments, ABC):
    """A rule that gives the T variances of a DDPM forward chain."""

    @abstractmethod
    def betas(self, T: int) -> Tensor:
        """The variances beta_1, ..., beta_T, each in (0, 1]: (T,), float64."""

    def log_alpha_bar(self, T: int) -> Tensor:
        """Log of the cumulative products of 1 - beta: (T,), float64, decreasing; -inf where the SNR is zero."""
        return torch.log1p(-self.betas(T)).cumsum(0)  # Ho et al. 2020, section 2


@dataclass(frozen=True)
class _BetaRange(Schedule):
    """Variances that grow from beta_min to beta_max.

    Args:
        beta_min: First variance, in (0, 1).
        beta_max: Last variance, in [beta_min, 1).
    """

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        require(0 < self.beta_min < 1, "beta_min", self.beta_min, "a number in (0, 1)")
        allowed = f"a number from beta_min ({self.beta_min}) to below 1"
        require(self.beta_min <= self.beta_max < 1, "beta_max", self.beta_max, allowed)


@dataclass(frozen=True)
class Linear(_BetaRange):
    """beta grows linearly: Ho et al. 2020 with T = 1000; Higham, Higham & Grindrod with T = 500."""

    beta_min: float = 1e-4
    beta_max: float = 0.02

    def betas(self, T: int) -> Tensor:
        return torch.linspace(self.beta_min, self.beta_max, T, dtype=torch.float64)


@dataclass(frozen=True)
class ScaledLinear(_BetaRange):
    """The square root of beta grows linearly: the table of latent diffusion (Rombach et al. 2022)."""

    beta_min: float = 0.00085
    beta_max: float = 0.012

    def betas(self, T: int) -> Tensor:
        return torch.linspace(math.sqrt(self.beta_min), math.sqrt(self.beta_max), T, dtype=torch.float64) ** 2


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha-bar follows a squared cosine (Nichol & Dhariwal 2021, eq. 17).

    Args:
        offset: The paper's s: keeps the first variances from vanishing; >= 0.
        beta_max: The variances are clipped here; in (0, 1).
    """

    offset: float = 0.008
    beta_max: float = 0.999

    def __post_init__(self) -> None:
        require(0 <= self.offset < math.inf, "offset", self.offset, "a number >= 0")
        require(0 < self.beta_max < 1, "beta_max", self.beta_max, "a number in (0, 1)")

    def betas(self, T: int) -> Tensor:
        progress = torch.linspace(0, 1, T + 1, dtype=torch.float64)
        alpha_bar = torch.cos((progress + self.offset) / (1 + self.offset) * math.pi / 2) ** 2  # eq. (17), times f(0)
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=self.beta_max)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """alpha-bar follows a logistic curve from 1 to 0 (Jabri et al. 2023, "sigmoid" with the defaults of Chen 2023).

    alpha-bar at progress p = t / T is (F(end) - F(start + p (end - start))) / (F(end) - F(start)), where F(x) is the
    logistic function of x / temperature. The "sigmoid" of diffusers is another curve, of beta; see `BetaTable`.

    Args:
        start: Where the curve begins, in units of the logistic function's argument.
        end: Where it ends; above start.
        temperature: The paper's tau, above 0: the larger, the straighter the curve.
        beta_max: The variances are clipped here; in (0, 1).
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0
    beta_max: float = 0.999

    def __post_init__(self) -> None:
        require(math.isfinite(self.start), "start", self.start, "a finite number")
        require(self.start < self.end < math.inf, "end", self.end, f"a number > start ({self.start})")
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a number > 0")
        require(0 < self.beta_max < 1, "beta_max", self.beta_max, "a number in (0, 1)")
        # Further out the curve has no slope in float64: two entries would be one.
        extreme = max(abs(self.start), abs(self.end)) / self.temperature
        require(extreme <= 20, "temperature", self.temperature, "at least a twentieth of start and end in magnitude")

    def betas(self, T: int) -> Tensor:
        progress = torch.linspace(0, 1, T + 1, dtype=torch.float64)
        # 1 - F(x) = F(-x): nothing cancels where alpha-bar is small.
        curve = torch.sigmoid(-(self.start + progress * (self.end - self.start)) / self.temperature)
        # 1 - (F_t - F_end) / (F_s - F_end): alpha-bar before any rounding of its ends, 1 and 0
        return ((curve[:-1] - curve[1:]) / (curve[:-1] - curve[-1])).clamp(max=self.beta_max)


@dataclass(frozen=True)
class ZeroTerminalSNR(Schedule):
    """Another table, shifted and scaled so that its last alpha-bar is 0 (Lin et al. 2024, algorithm 1).

    At alpha = 0, x0 cannot be recovered from eps: the parameterizations Eps and Score are rejected, V and X0 are well
    posed.

    Args:
        schedule: The table to change. Its first alpha-bar is preserved.
    """

    schedule: Schedule = field(default_factory=Linear)

    def betas(self, T: int) -> Tensor:
        root = self.schedule.log_alpha_bar(T).div(2).exp()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alpha_bar = root**2
        return torch.cat([1 - alpha_bar[:1], 1 - alpha_bar[1:] / alpha_bar[:-1]])


@dataclass(frozen=True)
class BetaTable(Schedule):
    """An explicit table, such as one that came with a model.

    Args:
        entries: beta_1, ..., beta_T, each in (0, 1); the last may be 1, which makes alpha = 0.
    """

    entries: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.entries) >= 2, "entries", self.entries, "a list of at least 2 numbers")
        for i, beta in enumerate(self.entries, 1):
            inside = 0 < beta < 1 or (beta == 1 and i == len(self.entries))
            require(inside, "entries", beta, f"numbers in (0, 1) (this is beta_{i})")

    def betas(self, T: int) -> Tensor:
        if len(self.entries) != T:
            raise ParameterError("T", f"must be {len(self.entries)}, the number of entries of the schedule, got {T}")
        return torch.tensor(self.entries, dtype=torch.float64)
