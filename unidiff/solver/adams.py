"""Multistep methods that interpolate the noise or the data: Adams-Bashforth, DEIS, and the library's own default."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Level, Process, Scale
from unidiff.solver.base import Solver
from unidiff.solver.exponential import (
    data_weights,
    is_pure_noise,
    lagrange,
    log_ratio,
    noise_weights,
    to,
    weighted_sum,
)

__all__ = ["DEIS", "AdamsBashforth", "ExponentialAdams"]


@dataclass(frozen=True)
class _NoiseInterpolation(Solver):
    """eps as the polynomial through its last `order` values, in a variable of the subclass's choice."""

    order: int = 3  # type: ignore[misc]

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 4)

    @abstractmethod
    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        """The interpolation variable where log(sigma / alpha) is `log_q`."""

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """One evaluation a step; the first steps are of lower order; see `Solver.states`."""
        with_data = [level for level in levels if not is_pure_noise(level)]
        weights = iter(noise_weights(partial(self.variable, denoiser.process), with_data, self.order))
        values: list[Tensor] = []
        for t, s in pairwise(levels):
            prediction = denoiser(u, t, **cond)
            if is_pure_noise(t) or is_pure_noise(s):
                u = to(s, prediction)
            else:
                values = [prediction.eps, *values][: self.order]
                u = s.alpha * (u / t.alpha + weighted_sum(next(weights), values))
            yield u
        yield denoiser(u, levels[-1], **cond).x0


@dataclass(frozen=True)
class AdamsBashforth(_NoiseInterpolation):
    """Adams-Bashforth for d(u / alpha) / dq = eps, q = sigma / alpha: eps as a polynomial in q.

    Linear multistep steps on a variable grid: the LMS sampler for the process of Karras et al. 2022, and rho-AB-DEIS of
    Zhang & Chen 2023 (their rho is q).

    Args:
        order: Values that a step uses, 1 to 4. With 1 it is DDIM.
    """

    order: int = 3  # type: ignore[misc]

    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        """Q itself."""
        return log_q.exp()


@dataclass(frozen=True)
class DEIS(_NoiseInterpolation):
    """Diffusion exponential integrator sampler, tAB: eps as a polynomial in t (Zhang & Chen 2023, eq. 14-15).

    Args:
        order: Values that a step uses, 1 to 4. With 1 it is DDIM.
    """

    order: int = 3  # type: ignore[misc]

    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        """The process's time."""
        return process.time_at(-2 * log_q)


@dataclass(frozen=True)
class ExponentialAdams(Solver):
    """The library's default: x0 as a polynomial in log(q^2 + c^2) / 2, predicted, corrected, and continued to q = 0.

    Predictor: the exponential Adams-Bashforth step through the last order - 1 values of x0. Corrector: the
    Adams-Moulton step that takes in the value at the new time as well, which the next step needs anyway (as in UniPC,
    Zhao et al. 2023), so a step costs one evaluation. The variable is log(sigma / alpha) where noise is large and its
    square where it is small: near the data, x0 along the flow is a smooth function of q^2, because the density of the
    noisy data is. The variable is finite at q = 0, so a polynomial continued to there ends the run in place of the
    first-order denoise.

    Args:
        order: Order of convergence, 2 to 5.
        softness: c, about the noise scale below which the data look smooth; above 0, in units of the data.
    """

    order: int = 4  # type: ignore[misc]
    softness: float = 0.1

    def __post_init__(self) -> None:
        require_whole("order", self.order, 2, 5)
        require(0 < self.softness < math.inf, "softness", self.softness, "a number above 0")

    def variable(self, log_q: Tensor) -> Tensor:
        """log(q^2 + softness^2) / 2 where log q is `log_q`; finite at q = 0."""
        return 0.5 * torch.logaddexp(2 * log_q, torch.full_like(log_q, 2 * math.log(self.softness)))

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """One evaluation a step; see `Solver.states`."""
        with_data = [level for level in levels if not is_pure_noise(level)]
        predictor = iter(data_weights(self.variable, with_data, self.order - 1))
        corrector = iter(data_weights(self.variable, with_data, self.order - 1, ahead=1))
        values: list[Tensor] = []
        before: tuple[Level, Tensor] | None = None  # the corrected state one level back
        for t, s in pairwise(levels):
            prediction = denoiser(u, t, **cond)
            if is_pure_noise(t) or is_pure_noise(s):
                u = to(s, prediction)
            else:
                values = [prediction.x0, *values]
                if before is not None:
                    u = _step(*before, t, next(corrector), values)
                before = t, u
                u = _step(t, u, s, next(predictor), values)
            yield u
        last = denoiser(u, levels[-1], **cond).x0
        yield self._at_the_data(with_data[::-1], [last, *values])

    def _at_the_data(self, levels: Sequence[Level], values: Sequence[Tensor]) -> Tensor:
        """The polynomial through values of x0, the newest first, at q = 0.

        It goes through values that lie at least half as far apart as the newest lies from q = 0: closer ones would
        multiply rounding and the network's errors.
        """
        w = [float(self.variable(torch.as_tensor(log_ratio(at), dtype=torch.float64))) for at in levels]
        to_go = w[0] - math.log(self.softness)
        chosen = [0]
        for i in range(1, min(len(w), len(values))):
            if len(chosen) < self.order and w[i] - w[chosen[-1]] >= 0.5 * to_go:
                chosen.append(i)
        at_zero = torch.tensor([math.log(self.softness)], dtype=torch.float64)
        weights = lagrange(torch.tensor([w[i] for i in chosen], dtype=torch.float64), at_zero)[:, 0].tolist()
        return weighted_sum(weights, [values[i] for i in chosen])


def _step(t: Level, u: Tensor, s: Level, weights: Sequence[Scale], values: Sequence[Tensor]) -> Tensor:
    return s.sigma / t.sigma * u + s.alpha * weighted_sum(weights, values)
