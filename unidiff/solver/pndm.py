"""Pseudo numerical methods (Liu et al. 2022): classical methods for eps in t, with DDIM's step in place of Euler's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.noise import Noise
from unidiff.prediction import Prediction
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level
from unidiff.solver.base import Solver
from unidiff.solver.exponential import ddim_step, log_ratios, weighted_sum
from unidiff.solver.order import NOISE, SHORT, full_order, short_steps, values_per_step

__all__ = ["PLMS", "PNDM"]

# Adams-Bashforth on equal steps, the newest value first; four of them: eq. (12).
_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class _PseudoMultistep(Solver):
    """Pseudo linear multistep steps through the last four values of eps, weighted as on equal steps in t (eq. 12).

    Args:
        published_orders: Whether every step uses all values there are, as published; else fewer where the polynomial
            would be continued too far (`unidiff.solver.order`), and a long first step is DDIM's.
    """

    published_orders: bool = False
    order: ClassVar[int | None] = 2

    def check(self, process: Process) -> None:
        # Adams' weights, the same for all modes, are unstable in those that turn from noise to data within a step.
        reason = f"{type(self).__name__} needs one log SNR for all modes"
        require_one_snr(process, "solver", reason, "Use ExponentialAdams or UniPC.")

    @abstractmethod
    def first_step(
        self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, start: Prediction, number: int, **cond: Tensor
    ) -> Tensor | None:
        """The state at s by a one-step method, from the prediction at t; None in the steps that are multistep."""

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        log_q, zero_alpha = log_ratios(levels)
        with_data = log_q[[not zero for zero in zero_alpha]]
        if self.published_orders:
            counts, short = full_order(len(with_data) - 1, 4), [True] * len(levels)
        else:
            counts, short = values_per_step(with_data, 4, NOISE), short_steps(with_data, SHORT)
        values: list[Tensor] = []
        number = 0
        for (t, s), singular in zip(pairwise(levels), map(any, pairwise(zero_alpha))):
            prediction = denoiser(u, t, **cond)
            if singular:
                u = ddim_step(s, prediction)
            else:
                values = [prediction.eps, *values][:4]
                first = self.first_step(denoiser, u, t, s, prediction, number, **cond) if short[number] else None
                u = _transfer(u, t, s, _WEIGHTS[counts[number] - 1], values) if first is None else first
                number += 1
            yield u
        yield denoiser(u, levels[-1], **cond).x0


@dataclass(frozen=True)
class PNDM(_PseudoMultistep):
    """F-PNDM: three pseudo Runge-Kutta steps, then pseudo linear multistep steps (Liu et al. 2022, algorithm 2).

    A Runge-Kutta step (eq. 13) takes four evaluations, two of them at the middle of the step in t. Of second order
    (theorem 3.1 and corollary 3.1): the average of eps over a step is of order 4 in t, the step is DDIM's.
    """

    def first_step(
        self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, start: Prediction, number: int, **cond: Tensor
    ) -> Tensor | None:
        if number > 2:
            return None
        middle = denoiser.process.level(float(t.time + s.time) / 2, u)
        e1 = start.eps
        e2 = denoiser(_transfer(u, t, middle, (1.0,), [e1]), middle, **cond).eps
        e3 = denoiser(_transfer(u, t, middle, (1.0,), [e2]), middle, **cond).eps
        e4 = denoiser(_transfer(u, t, s, (1.0,), [e3]), s, **cond).eps
        return _transfer(u, t, s, (1 / 6, 1 / 3, 1 / 3, 1 / 6), [e1, e2, e3, e4])


@dataclass(frozen=True)
class PLMS(_PseudoMultistep):
    """PNDM without Runge-Kutta steps, as Stable Diffusion was published with: one step of Heun's kind, then multistep.

    The first step takes the mean of eps at its beginning and at its end; the next ones use two, three and four values.
    """

    def first_step(
        self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, start: Prediction, number: int, **cond: Tensor
    ) -> Tensor | None:
        if number > 0:
            return None
        end = denoiser(ddim_step(s, start), s, **cond)
        return _transfer(u, t, s, (0.5, 0.5), [start.eps, end.eps])


def _transfer(u: Tensor, t: Level, s: Level, weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """The state at s of the noise sum_j weights[j] values[j]: phi of eq. (11), DDIM's step."""
    ratio = s.alpha / t.alpha
    shift = s.sigma - ratio * t.sigma
    return weighted_sum([ratio, *[shift * weight for weight in weights]], [u, *values])
