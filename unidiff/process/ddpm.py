"""DDPM: the discrete variance-preserving chain, read as a curve."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from unidiff.errors import require_whole
from unidiff.process.base import Process
from unidiff.schedule import Linear, Schedule

__all__ = ["DDPM"]


@dataclass(frozen=True)
class DDPM(Process):
    """The forward chain q(x_t | x_0) = N(sqrt(alpha-bar_t) x_0, (1 - alpha-bar_t) I) (Ho et al. 2020, eq. 4).

    The paper's integer i = 1, ..., T is the time t = i / T here, and alpha = sqrt(alpha-bar). Between two entries of
    the table the log-SNR is linear in t, so solvers may ask for any t; before the first entry that line is continued.
    If the last entry is pure noise (ZeroTerminalSNR), alpha / sigma is linear in the last interval instead.

    Args:
        T: Number of entries of the table, at least 2: 1000 in Ho et al. 2020, 500 in Higham, Higham & Grindrod.
        schedule: The rule for beta_1, ..., beta_T.
    """

    T: int = 1000
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self) -> None:
        require_whole("T", self.T, 2, 1_000_000)

    @cached_property
    def _log_snr_table(self) -> Tensor:
        log_alpha_bar = self.schedule.log_alpha_bar(self.T)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio at t: the table, joined by straight lines."""
        table = self._log_snr_table
        position = t.to(torch.float64) * self.T - 1  # entry i sits at t = i / T
        left = position.detach().floor().clamp(0, self.T - 2)
        fraction = position - left
        index = left.long()
        start, end = table[index], table[index + 1]
        line = start + fraction * torch.where(end.isinf(), 0.0, end - start)
        # alpha / sigma falls linearly to 0; the clamp only guards the branch that is not taken.
        to_pure_noise = start + 2 * torch.log1p(-fraction.clamp(max=1.0))
        return torch.where(end.isinf(), to_pure_noise, line)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data: alpha^2 = sigmoid(log SNR), because alpha^2 + sigma^2 = 1."""
        return 0.5 * torch.nn.functional.logsigmoid(self.log_snr(t))

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: sigma^2 = sigmoid(-log SNR)."""
        return 0.5 * torch.nn.functional.logsigmoid(-self.log_snr(t))

    @property
    def t_min(self) -> float:
        """The first entry of the table, 1 / T."""
        return 1 / self.T

    def native_times(self) -> Tensor:
        """The entries of the table, i / T for i = 1, ..., T."""
        return torch.arange(1, self.T + 1, dtype=torch.float64) / self.T

    def prior_scale(self) -> float:
        """1: sampling starts from N(0, I) (Ho et al. 2020, algorithm 2)."""
        return 1.0
