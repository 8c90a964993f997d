"""SA-Solver: stochastic Adams methods for the reverse SDE, as predictor and corrector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale, axpby, expm1, once_for_grid
from unidiff.solver.base import Solver
from unidiff.solver.exponential import data_weights, ddim_step, log_ratio, log_ratios, to_device, weighted_sum
from unidiff.solver.order import DATA, short_steps, values_per_step

__all__ = ["SASolver"]


class _Weights(NamedTuple):
    """Those of the values in the steps between levels with data, one entry each.

    Attributes:
        zero_alpha: For each level of the run whether alpha is 0 in some mode.
        predictor: Of x0 at the last levels, the newest first.
        corrector: Of x0 at the step's end and at the last levels.
        short: Whether the step is short enough to be corrected.
    """

    zero_alpha: list[bool]
    predictor: list[list[Scale]]
    corrector: list[list[Scale]]
    short: list[bool]


@dataclass(frozen=True)
class SASolver(Solver):
    """Stochastic Adams predictor and corrector of the data prediction (Xue et al. 2023, algorithm 1, eq. 14 and 17).

    Along the SDE with tau of the noise, for y = log(alpha / sigma) from -h to 0 at the end of a step,

        u_s = (sigma_s / sigma_t) e^{-tau^2 h} u_t + alpha_s int (1 + tau^2) e^{(1 + tau^2) y} x0 dy
              + sigma_s sqrt(1 - e^{-2 tau^2 h}) z

    with x0 as the polynomial through its last values. The corrector takes in the value at the predicted end, which the
    next step needs anyway, with the same noise, so a step costs one evaluation. The first steps have fewer values, and
    the run ends with one denoise. Not as published, the order also falls where the polynomial would be continued too
    far (`unidiff.solver.order`).

    Args:
        order: Values that the predictor uses, 1 to 4; the corrector uses one more.
        tau: The noise, in units of the process's own, constant over the run; 0 is the flow, 1 the reverse SDE. At
            least 0; the paper's best are 0.2 to 1.6.
    """

    order: int = 3  # type: ignore[misc]
    tau: float = 1.0

    def __post_init__(self) -> None:
        require_whole("order", self.order, 1, 4)
        require(0 <= self.tau < math.inf, "tau", self.tau, "a number >= 0")

    @property
    def convergence(self) -> int | None:
        """One more than the predictor's; with noise, in distribution, at most 2: x0 along a random path is not smooth.

        The paper's theorem 5.2: the error is of order h^(order + 1) and tau h.
        """
        return self.order + 1 if self.tau == 0 else min(self.order + 1, 2)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        made = once_for_grid(levels, self, lambda: self._weights(levels, u.device))
        steps, zero_alpha = zip(*made[1:]), made.zero_alpha
        prediction, values = denoiser(u, levels[0], **cond), list[Tensor]()
        for (t, s), (no_data, no_data_after) in zip(pairwise(levels), pairwise(zero_alpha)):
            if no_data_after:  # log(sigma / alpha) is infinite in some mode at both ends
                u = ddim_step(s, prediction)
                prediction = denoiser(u, s, **cond)
                yield u
                continue
            h = log_ratio(t) - log_ratio(s)
            decay = s.sigma / t.sigma * (1 + expm1(-(self.tau**2) * h) if self.tau > 0 else 1.0)
            z = noise(u) if self.tau > 0 else None
            deviation = s.sigma * (-expm1(-2 * self.tau**2 * h)) ** 0.5

            def end(weights: Sequence[Scale], known: Sequence[Tensor]) -> Tensor:
                mean = weighted_sum([decay, *[s.alpha * weight for weight in weights]], [u, *known])  # noqa: B023
                return mean if z is None else axpby(1.0, mean, deviation, z)  # noqa: B023

            if no_data:  # from where no polynomial is continued
                after = end([-expm1(-(1 + self.tau**2) * h)], [prediction.x0])
                prediction = denoiser(after, s, **cond)
            else:
                predictor, corrector, short = next(steps)
                values = [prediction.x0, *values][: self.order]
                after = end(predictor, values)
                prediction = denoiser(after, s, **cond)
                if short:
                    after = end(corrector, [prediction.x0, *values])
            u = after
            yield u
        yield prediction.x0

    def _weights(self, levels: Sequence[Level], device: torch.device) -> _Weights:
        log_q, zero_alpha = log_ratios(levels)
        path = log_q[[not zero for zero in zero_alpha]]
        counts = values_per_step(path, self.order, DATA)
        predictor, corrector = (
            to_device(data_weights(_log_q, path, counts, eta=self.tau, implicit=implicit), device)
            for implicit in (False, True)
        )
        return _Weights(zero_alpha, predictor, corrector, short_steps(path, DATA))


def _log_q(log_q: Tensor) -> Tensor:
    """The interpolation variable."""
    return log_q
