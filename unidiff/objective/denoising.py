"""Denoising, the regression that DDPM and denoising score matching share, alone and with a learned variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, require
from unidiff.objective.base import Objective, table_levels
from unidiff.objective.weighting import UniformWeighting, Weighting
from unidiff.parameterization import Parameterization
from unidiff.process.base import Process
from unidiff.process.level import Level, posterior_kl

__all__ = ["Denoising", "Hybrid"]


@dataclass(frozen=True)
class Denoising(Objective):
    """E w(t) |network(u_t, t) - (a x0 + b eps)|^2, a mean over pixels (Vincent 2011; Ho et al. 2020, eq. 14).

    With Eps this is DDPM's loss, with Score it is denoising score matching (thesis eq. 3.11 and 3.20).

    Args:
        weighting: The weight w(t).
    """

    weighting: Weighting = field(default_factory=UniformWeighting)
    couples: ClassVar[bool] = True

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,)."""
        u = denoiser.process.perturb(u0, eps, level)
        return self._simple(denoiser.parameterization, denoiser.output(u, level, **cond), u0, eps, level)

    def _simple(
        self, parameterization: Parameterization, output: Tensor, u0: Tensor, eps: Tensor, level: Level
    ) -> Tensor:
        error = output - parameterization.target(u0, eps, level)
        # The root of the weight meets the error before the square: 1/sigma^4 would not fit low-precision ranges.
        return (self.weighting.root(parameterization, level, u0) * error).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Hybrid(Denoising):
    """L_simple + weight L_vlb, the second for the variance of a reverse step (Nichol & Dhariwal 2021, eq. 16).

    L_simple is the loss of `Denoising`. L_vlb is the sum over the steps of the table of
    KL(q(u_s | u_t, u_0) || p(u_s | u_t)), in nats per pixel, estimated by the table's length times the term of one
    time. The mean of p is detached in it, so it trains the variance alone. The first entry's term is left out: its
    decoder has a variance of its own (see `variational_bound`), and with a detached mean it would be a constant.
    The authors' code counts bits instead, which is a weight 1 / ln 2 times larger.

    Args:
        weighting: The weight w(t) of L_simple, as in Denoising.
        weight: lambda, above 0; the paper's 0.001.
    """

    weight: float = 0.001
    learns_variance: ClassVar[bool] = True
    couples: ClassVar[bool] = False  # the bound is that of a Markov chain

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "weight", self.weight, "a number > 0")

    def check(self, process: Process) -> None:
        """Reject a process without a table, whose steps the bound would sum, or whose modes differ."""
        super().check(process)
        if process.native_times() is None:
            problem = f"Hybrid sums a bound over the steps of a table, and {process!r} has none. Use DDPM or NCSN."
            raise ParameterError("objective", problem)
        if process.basis.shape:
            problem = f"Hybrid learns a variance of pixels, and {process!r} has a noise level for each of its modes."
            raise ParameterError("objective", f"{problem} Use Denoising.")

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at times of the table."""
        u = denoiser.process.perturb(u0, eps, level)
        parameterization = denoiser.parameterization
        output, variance = denoiser.network_output(u, level, **cond)
        if variance is None:
            problem = "Hybrid trains a variance, which this network does not predict. Build it with learned_variance."
            raise ParameterError("objective", problem)
        x0 = parameterization.solve(output.detach(), u, level).x0
        bound = _bound(denoiser.process, u0 - x0, level, variance)
        return self._simple(parameterization, output, u0, eps, level) + self.weight * bound


def _bound(process: Process, error: Tensor, level: Level, variance: Tensor) -> Tensor:
    """The length of the table times the term of each sample's step, in nats per pixel: (B,)."""
    table = table_levels(process, error.ndim, error.device, error.dtype)
    times = torch.as_tensor(table.time).flatten()
    t = torch.as_tensor(level.time, device=error.device).flatten().contiguous()
    index = torch.searchsorted((times[1:] + times[:-1]) / 2, t)  # the nearest: t was rounded to the data's dtype
    rows = (index - 1).clamp(min=0)
    below = table.map(lambda value: value[rows])
    squares, spread = posterior_kl(error, level, below, variance)
    terms = (squares + spread).flatten(1).mean(1)
    return len(times) * torch.where(index > 0, terms, 0.0)
