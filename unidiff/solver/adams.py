"""Multistep methods that interpolate the noise: Adams-Bashforth in sigma / alpha, DEIS in t and in log rho."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level, Scale, once_for_grid
from unidiff.solver.base import Solver, require_positive_alpha
from unidiff.solver.exponential import ddim_step, log_ratios, noise_weights, weighted_sum, with_states
from unidiff.solver.order import NOISE, full_order, values_per_step

__all__ = ["DEIS", "AdamsBashforth", "LogRhoDEIS"]


@dataclass(frozen=True)
class _NoiseInterpolation(Solver):
    """eps as the polynomial through its last `order` values, in the variable of the subclass.

    Args:
        order: Values that a step uses, 1 to 4; fewer in the first steps, and where the polynomial would be continued
            too far (`unidiff.solver.order`). With 1 it is DDIM.
        published_orders: Whether all steps but the first use `order` values, as published.
    """

    order: int = 3  # type: ignore[misc]
    published_orders: bool = False

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 4)

    def check(self, process: Process) -> None:
        if process.basis.shape:
            reason = f"{type(self).__name__} steps in u / alpha"
            require_positive_alpha(process, reason, "Use ExponentialAdams or UniPC.")

    @abstractmethod
    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        """The interpolation variable where log(sigma / alpha) is `log_q`."""

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        made = once_for_grid(levels, self, lambda: self._weights(denoiser.process, levels, u.device))
        zero_alpha, weights = made[0], iter(made[1])
        values: list[Tensor] = []
        for (t, s), singular in zip(pairwise(levels), map(any, pairwise(zero_alpha))):
            prediction = denoiser(u, t, **cond)
            if singular:
                u = ddim_step(s, prediction)
            else:
                values = [prediction.eps, *values][: self.order]
                u = weighted_sum(next(weights), [u, *values])
            yield u
        yield denoiser(u, levels[-1], **cond).x0

    def _weights(
        self, process: Process, levels: Sequence[Level], device: torch.device
    ) -> tuple[list[bool], Iterable[list[Scale]]]:
        """Where alpha is 0, and the weights of the steps elsewhere."""
        log_q, zero_alpha = log_ratios(levels)
        used = [i for i, zero in enumerate(zero_alpha) if not zero]
        path, with_data = [levels[i] for i in used], log_q[used]
        if self.published_orders:
            counts = full_order(len(with_data) - 1, self.order)
        else:
            counts = values_per_step(with_data, self.order, NOISE)
        steps = noise_weights(partial(self.variable, process), with_data, counts)
        return zero_alpha, with_states(steps, path, device, noise=True)


@dataclass(frozen=True)
class AdamsBashforth(_NoiseInterpolation):
    """Adams-Bashforth for d(u / alpha) / dq = eps, q = sigma / alpha: eps as a polynomial in q.

    Linear multistep steps on a variable grid: the LMS sampler for the process of Karras et al. 2022, and rho-AB-DEIS of
    Zhang & Chen 2023 (their rho is q).
    """

    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        return log_q.exp()


@dataclass(frozen=True)
class DEIS(_NoiseInterpolation):
    """Diffusion exponential integrator sampler, tAB: eps as a polynomial in t (Zhang & Chen 2023, eq. 14-15)."""

    def check(self, process: Process) -> None:
        # The polynomial in t is integrated over sigma / alpha.
        reason = "DEIS needs a one-to-one map from noise level to time"
        require_one_snr(process, "solver", reason, "Use AdamsBashforth, ExponentialAdams or UniPC.")

    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        return process.time_at(-2 * log_q)


@dataclass(frozen=True)
class LogRhoDEIS(_NoiseInterpolation):
    """DEIS, eps as a polynomial in log(sigma / alpha): tAB (Zhang & Chen 2023, eq. 14-15) with log rho for the time.

    It is what diffusers calls DEIS.
    """

    def variable(self, process: Process, log_q: Tensor) -> Tensor:
        return log_q
