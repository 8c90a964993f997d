"""The grid of times on which a model learns to take few steps: i / N, as in `Trailing`."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["Interval", "require_steps", "two_steps"]


class Interval:
    """The intervals of a grid of N that the samples of a batch are in, from t = i / N down to s = (i - 1) / N.

    Args:
        process: The process.
        steps: N.
        level: One time per sample; t is the end of the interval that it is in.
        like: A state of the batch, (B, *modes).

    Attributes:
        t: The level at i / N.
        middle: That at (i - 1/2) / N.
        s: That at (i - 1) / N; where this is 0, that of the middle, which is not to be used.
        last: Whether s is 0, (B, 1, ..., 1).
    """

    def __init__(self, process: Process, steps: int, level: Level, like: Tensor) -> None:
        table = _levels(process, 2 * steps, like.ndim, like.device, like.dtype)
        time = torch.as_tensor(level.time, device=like.device).flatten()
        # Less than rounding of float32 above an end is that end.
        i = torch.ceil(time * steps - 1e-4).long().clamp(1, steps).expand(len(like))
        self.t = table.map(lambda value: value[2 * i - 1])
        self.middle = table.map(lambda value: value[2 * i - 2])
        self.s = table.map(lambda value: value[(2 * i - 3).clamp(min=0)])
        self.last = (i == 1).reshape(-1, *[1] * (like.ndim - 1))

    def data_of_two_steps(self, first: Tensor, second: Tensor) -> Tensor:
        """The x0 with which one step of DDIM from t to s ends where two steps end, (B, *modes).

        Salimans & Ho 2022, algorithm 2: x0 = (u_s - (sigma_s / sigma_t) u_t) / (alpha_s - (sigma_s / sigma_t) alpha_t).
        With u_s that of two steps of DDIM this is a weighted mean of their predictions. For q = sigma / alpha the
        weight of the first is (q_s / q_m - q_s / q_t) / (1 - q_s / q_t), finite where alpha or sigma is 0.

        Args:
            first: The x0 predicted at t.
            second: That predicted in the middle m, at the end of the first step.
        """
        upper = torch.as_tensor((self.t.log_snr - self.middle.log_snr) / 2)  # log q_m / q_t
        lower = torch.where(self.last, -torch.inf, torch.as_tensor((self.middle.log_snr - self.s.log_snr) / 2))
        shrunk = -torch.expm1(upper + lower)  # 1 - q_s / q_t: 0 in a mode that stands still, where both say the same
        weight = torch.exp(lower) * -torch.expm1(upper) / torch.where(shrunk == 0, 1.0, shrunk)
        return torch.lerp(second, first, weight.expand_as(first).to(first.dtype))


def require_steps(process: Process, steps: int, name: str, halves: bool) -> None:
    """Raise a ParameterError if the grid of `steps`, or that of twice as many, ends below the process's t_min."""
    most = int((0.5 if halves else 1.0) / process.t_min + 1e-9)
    if steps > most:
        problem = f"must be at most {most} on {process!r}, whose t_min is {process.t_min:g}, got {steps}"
        raise ParameterError(name, problem)


@torch.no_grad()
def two_steps(teacher: Denoiser, u: Tensor, interval: Interval, **cond: Tensor) -> Tensor:
    """The x0 with which one step of DDIM over the intervals equals two of a teacher's, (B, *modes)."""
    first = teacher(u, interval.t, **cond)
    middle = first.mix(interval.middle.alpha, interval.middle.sigma)
    return interval.data_of_two_steps(first.x0, teacher(middle, interval.middle, **cond).x0)


@lru_cache(maxsize=64)
def _levels(process: Process, count: int, ndim: int, device: torch.device, dtype: torch.dtype) -> Level:
    """The levels at 1 / count, 2 / count, ..., 1, as of a batch of states with `ndim` axes."""
    times = torch.arange(1, count + 1, dtype=torch.float64) / count
    return process.level(times, torch.empty(count, *[1] * (ndim - 1), device=device, dtype=dtype))
