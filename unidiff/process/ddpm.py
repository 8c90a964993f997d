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
    the table log SNR is a monotone cubic, so solvers may ask for any t and find rates without jumps; before the first
    entry it is a straight line. If the last entry is pure noise (ZeroTerminalSNR), alpha / sigma is linear in the last
    interval instead.

    Args:
        T: Number of entries of the table, at least 2: 1000 in Ho et al. 2020, 500 in Higham, Higham & Grindrod.
        schedule: The rule for beta_1, ..., beta_T.
    """

    T: int = 1000
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self) -> None:
        require_whole("T", self.T, 2, 1_000_000)

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Log SNR at the entries, and its slope per entry, both (T,)."""
        log_alpha_bar = self.schedule.log_alpha_bar(self.T)
        log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
        rise = log_snr.diff()
        to_pure_noise = rise.isinf()
        rise = torch.where(to_pure_noise, -2.0, rise)  # where alpha / sigma starts its straight way to 0
        harmonic = 2 * rise[1:] * rise[:-1] / (rise[1:] + rise[:-1])
        # The straight way is met with its own slope, -2; a cubic is monotone for slopes of up to three times its rise.
        inner = torch.where(to_pure_noise[1:], (3 * rise[:-1]).clamp(min=-2.0), harmonic)
        return log_snr, torch.cat([rise[:1], inner, rise[-1:]])

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The entry on the left of t, counted from 0, and how far t is on the way to the next one."""
        position = t.to(torch.float64) * self.T - 1  # entry i sits at t = i / T
        left = position.detach().floor().clamp(0, self.T - 2)
        return left.long(), position - left

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio at t: the table, joined by monotone cubics (Fritsch & Butland 1984)."""
        value, slope = self._table
        index, x = self._interval(t)
        start, end, m, n = value[index], value[index + 1], slope[index], slope[index + 1]
        rise = torch.where(end.isinf(), 0.0, end - start)
        cubic = start + x * (m + x * (3 * rise - 2 * m - n + x * (m + n - 2 * rise)))
        # alpha / sigma falls linearly to 0; the clamp only guards the branch that is not taken.
        to_pure_noise = start + 2 * torch.log1p(-x.clamp(max=1.0))
        return torch.where(x < 0, start + x * m, torch.where(end.isinf(), to_pure_noise, cubic))

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data: alpha^2 = sigmoid(log SNR), because alpha^2 + sigma^2 = 1."""
        return 0.5 * torch.nn.functional.logsigmoid(self.log_snr(t))

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise: sigma^2 = sigmoid(-log SNR)."""
        return 0.5 * torch.nn.functional.logsigmoid(-self.log_snr(t))

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data."""
        return torch.where(self._ends_in_noise(t), self._ratio(t) * self.sigma(t), super().alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise."""
        return torch.where(self._ends_in_noise(t), (1 + self._ratio(t) ** 2).rsqrt(), super().sigma(t))

    def _ends_in_noise(self, t: Tensor) -> Tensor:
        return self._table[0][self._interval(t)[0] + 1].isinf()

    def _ratio(self, t: Tensor) -> Tensor:
        """Alpha / sigma in an interval that ends in pure noise, without a logarithm of 0."""
        index, x = self._interval(t)
        return (self._table[0][index] / 2).exp() * (1 - x)

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
