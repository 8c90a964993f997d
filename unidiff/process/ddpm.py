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
    the table log SNR is a monotone cubic (Fritsch & Butland 1984), so it is defined at any t and its rates have no
    jumps; before the first entry it is a straight line. If alpha = 0 at the last entry (ZeroTerminalSNR), alpha /
    sigma is linear in the last interval instead.

    Args:
        T: Number of entries of the table, at least 2: 1000 in Ho et al. 2020, 500 in Higham, Higham & Grindrod.
        schedule: The rule for beta_1, ..., beta_T.
    """

    T: int = 1000
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self) -> None:
        require_whole("T", self.T, 2, 1_000_000)
        with torch.inference_mode(False):  # an inference tensor could not be used where rates are computed
            _ = self._pieces

    @cached_property
    def _pieces(self) -> Tensor:
        """Coefficients c_0, ..., c_3 of log SNR in x, the distance in entries from the entry on the left: (T, 4).

        Row 0 is the line before the first entry. In an interval that ends in alpha = 0 only c_0 is nonzero.
        """
        log_alpha_bar = self.schedule.log_alpha_bar(self.T)
        log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
        start, rise = log_snr[:-1], log_snr.diff()
        to_pure_noise = rise.isinf()
        rise = torch.where(to_pure_noise, -2.0, rise)  # where alpha / sigma begins its straight line to 0
        harmonic = 2 * rise[1:] * rise[:-1] / (rise[1:] + rise[:-1])
        # The straight line is met with its own slope, -2; a cubic is monotone for slopes of up to three times its rise.
        inner = torch.where(to_pure_noise[1:], (3 * rise[:-1]).clamp(min=-2.0), harmonic)
        m, n = torch.cat([rise[:1], inner]), torch.cat([inner, rise[-1:]])
        cubic = torch.stack([start, m, 3 * rise - 2 * m - n, m + n - 2 * rise], 1)
        cubic[to_pure_noise, 1:] = 0
        return torch.cat([cubic[:1] * torch.tensor([1.0, 1.0, 0.0, 0.0]), cubic])

    def _ratio(self, t: Tensor) -> Tensor:
        """Alpha / sigma at t, which may be 0."""
        position = t.to(torch.float64) * self.T - 1  # entry i sits at t = i / T
        left = position.detach().floor().clamp(-1, self.T - 2).long()
        x = position - left.clamp(min=0)
        c0, c1, c2, c3 = self._pieces[left + 1].unbind(-1)
        ratio = torch.exp((c0 + x * (c1 + x * (c2 + x * c3))) / 2)
        return torch.where(c1 == 0, ratio * (1 - x), ratio)  # elsewhere log SNR falls: c_1 < 0

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * self._ratio(t).log()

    def log_alpha(self, t: Tensor) -> Tensor:
        # alpha^2 = sigmoid(log SNR) and sigma^2 = sigmoid(-log SNR), because alpha^2 + sigma^2 = 1
        return 0.5 * torch.nn.functional.logsigmoid(self.log_snr(t))

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.nn.functional.logsigmoid(-self.log_snr(t))

    def alpha(self, t: Tensor) -> Tensor:
        ratio = self._ratio(t)
        return ratio * (1 + ratio**2).rsqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 + self._ratio(t) ** 2).rsqrt()

    def _scales(self, at: Tensor) -> Tensor:
        ratio = self._ratio(at)  # once for both
        sigma = (1 + ratio**2).rsqrt()
        return torch.stack([ratio * sigma, sigma])

    @property
    def t_min(self) -> float:
        return 1 / self.T

    def native_times(self) -> Tensor:
        return torch.arange(1, self.T + 1, dtype=torch.float64) / self.T

    def prior_scale(self) -> float:
        return 1.0  # sampling starts from N(0, I): Ho et al. 2020, algorithm 2
