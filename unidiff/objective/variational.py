"""The variational bound as an objective, alone and beside the denoising loss: both train the variance of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.objective.base import Objective, entry_below
from unidiff.objective.denoising import Denoising
from unidiff.precision import precise
from unidiff.process.base import Process
from unidiff.process.decoder import decoder_log_scale, decoder_nll
from unidiff.process.level import Level, posterior_kl

__all__ = ["VLB", "Hybrid"]


@dataclass(frozen=True)
class VLB(Objective):
    """L_vlb, the variational bound itself, for mean and variance (Nichol & Dhariwal 2021, eq. 4-7; thesis eq. 4.3).

    The loss of a sample is the length of the table times the term of one time, in nats per pixel: of the first entry
    the decoder's, of any other KL(q(u_s | u_t, u_0) || p(u_s | u_t)), where s is the entry below t. Over uniform times
    its expectation is the bound of `variational_bound(decoder_variance=None)` along the native grid, without the
    prior's term, which no training changes. The terms differ by orders of magnitude: draw the times with
    `ImportanceSampled`. For a fixed variance use `Denoising` with `VLBWeighting`.

    Args:
        levels: Number of equally spaced values from -1 to 1 that the data can take (256 for images), over whose bins
            the decoder is integrated; None for the density of continuous data.
    """

    levels: int | None = None
    learns_variance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_levels(self.levels)

    def check(self, process: Process) -> None:
        """Reject a process without a table, whose steps the bound would sum, or whose modes differ."""
        super().check(process)
        _require_steps(self, process)

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at times of the table."""
        u = denoiser.process.perturb(u0, eps, level)
        output, variance = _with_variance(self, denoiser, u, level, **cond)
        x0 = denoiser.parameterization.solve(output, u, level).x0
        kl, first = _step_terms(denoiser.process, u0 - x0, level, variance)
        decoder = _decoder_term(denoiser.process, u0, u0 - x0, variance, self.levels)
        return _table_length(denoiser.process) * torch.where(first, decoder, kl)


@dataclass(frozen=True)
class Hybrid(Denoising):
    """L_simple + weight L_vlb, the second for the variance of a reverse step (Nichol & Dhariwal 2021, eq. 16).

    L_simple is the loss of `Denoising`. L_vlb is the sum over the steps of the table of
    KL(q(u_s | u_t, u_0) || p(u_s | u_t)), in nats per pixel, estimated by the table's length times the term of one
    time. The mean of p is detached in it, so it trains the variance alone. The authors' code counts bits instead, which
    is a weight 1 / ln 2 times larger.

    Args:
        weighting: The weight w(t) of L_simple, as in Denoising.
        weight: lambda, above 0; the paper's 0.001.
        levels: Number of equally spaced values from -1 to 1 that the data can take (256 for images): the variance at
            the first entry of the table, that of the decoder, is trained too, as in the authors' code. With None the
            decoder's term is left out, and `variational_bound` is to take a decoder of fixed variance.
    """

    weight: float = 0.001
    levels: int | None = None
    learns_variance: ClassVar[bool] = True
    couples: ClassVar[bool] = False  # the bound is that of a Markov chain

    def __post_init__(self) -> None:
        require(0 < self.weight < math.inf, "weight", self.weight, "a number > 0")
        _require_levels(self.levels)

    def check(self, process: Process) -> None:
        """Reject a process without a table, whose steps the bound would sum, or whose modes differ."""
        super().check(process)
        _require_steps(self, process)

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at times of the table."""
        u = denoiser.process.perturb(u0, eps, level)
        output, variance = _with_variance(self, denoiser, u, level, **cond)
        x0 = denoiser.parameterization.solve(output.detach(), u, level).x0
        bound, first = _step_terms(denoiser.process, u0 - x0, level, variance)
        decoder = torch.zeros_like(bound)
        if self.levels is not None:
            decoder = _decoder_term(denoiser.process, u0, u0 - x0, variance, self.levels)
        bound = _table_length(denoiser.process) * torch.where(first, decoder, bound)
        return self._simple(denoiser, output, u0, eps, level) + self.weight * bound


def _require_levels(levels: int | None) -> None:
    """Raise a ParameterError for a number of values that data cannot have."""
    if levels is not None:
        require_whole("levels", levels, 2, 2**16)


def _require_steps(objective: Objective, process: Process) -> None:
    """Raise a ParameterError unless a process has a table, and one noise level for all pixels."""
    name = type(objective).__name__
    if process.native_times() is None:
        problem = f"{name} sums a bound over the steps of a table, and {process!r} has none. Use DDPM or NCSN."
        raise ParameterError("objective", problem)
    if process.basis.shape:
        problem = f"{name} learns a variance of pixels, and {process!r} has a noise level for each of its modes."
        raise ParameterError("objective", f"{problem} Use Denoising.")


def _with_variance(
    objective: Objective, denoiser: NeuralDenoiser, u: Tensor, level: Level, **cond: Tensor
) -> tuple[Tensor, Tensor]:
    """What the network predicts, and the variance that it must predict with it."""
    output, variance = denoiser.network_output(u, level, **cond)
    if variance is None:
        problem = f"{type(objective).__name__} trains a variance, which this network does not predict."
        raise ParameterError("objective", f"{problem} Build it with learned_variance.")
    return output, variance


def _table_length(process: Process) -> int:
    table = process.native_times()
    assert table is not None
    return len(table)


def _step_terms(process: Process, error: Tensor, level: Level, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The terms of each sample's step to the entry below, in nats per pixel, and where there is no step: (B,)."""
    below, first = entry_below(process, level, error)
    squares, spread = posterior_kl(error, level, below, variance)
    return (squares + spread).flatten(1).mean(1), first


def _decoder_term(process: Process, x: Tensor, error: Tensor, variance: Tensor, levels: int | None) -> Tensor:
    """The decoder's term of each sample, in nats per pixel, as of the first entry of the table: (B,)."""
    table = process.native_times()
    assert table is not None
    dtype = precise(x.device)  # a bin's probability is a difference
    first, second = process.levels_at(table[:2])
    log_scale = decoder_log_scale(first, second, variance.to(dtype))
    return decoder_nll(x.to(dtype), error.to(dtype), log_scale, levels).flatten(1).mean(1).to(x)
