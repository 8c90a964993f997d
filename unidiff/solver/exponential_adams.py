"""The default solver: exponential Adams-Bashforth-Moulton steps in a variable that is finite at both ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level
from unidiff.solver.base import Solver
from unidiff.solver.exponential import (
    data_weights,
    ddim_step,
    lagrange,
    log_ratios,
    to_device,
    weighted_sum,
    with_states,
)

__all__ = ["ExponentialAdams"]


@dataclass(frozen=True)
class ExponentialAdams(Solver):
    """x0 along the flow as a polynomial in w = -asinh(high / sqrt(q^2 + low^2)), q = sigma / alpha; the default.

    Predictor: the exponential Adams-Bashforth step through the last order - 1 values of x0. Corrector: the
    Adams-Moulton step that takes in the value at the new time as well, which the next step needs anyway (as in UniPC,
    Zhao et al. 2023), so a step costs one evaluation. The first order - 1 corrections integrate from the start with
    all available values, which removes the errors of the first, lower-order steps.

    The variable is chosen so that x0 is smooth in it. Between `low` and `high`, w is log q plus a constant. Far below,
    it is q^2: the density of the noisy data is a smooth function of q^2 there, and so is x0. Far above, it is 1 / q: x0
    departs from the mean of the data in proportion. For one Gaussian, x0 - mean is proportional to (C + q^2)^(-1/2), C
    the variance. As it is finite at alpha = 0, the first steps have full order; as it is finite at q = 0, the run ends
    by extrapolating the polynomial to q = 0 instead of with a denoise, which is of first order.

    Args:
        order: Order of convergence, 2 to 5.
        low: Noise scale below which the data look smooth, in units of the data; above 0.
        high: Noise scale above which x0 is close to the mean of the data; above low. The exact x0 would allow 10. A
            network's errors grow there, with q if it predicts eps, and nodes that are too close would amplify them.
    """

    order: int = 4  # type: ignore[misc]
    low: float = 0.1
    high: float = 100.0

    def __post_init__(self) -> None:
        require_whole("order", self.order, 2, 5)
        require(0 < self.low < math.inf, "low", self.low, "a number > 0")
        require(self.low < self.high < math.inf, "high", self.high, f"a number > low ({self.low})")

    def variable(self, log_q: Tensor) -> Tensor:
        """The interpolation variable w where log(sigma / alpha) is `log_q`, from -infinity to infinity."""
        log_root = 0.5 * torch.logaddexp(2 * log_q, torch.full_like(log_q, 2 * math.log(self.low)))
        return -torch.asinh(self.high * torch.exp(-log_root))

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        log_q, zero_alpha = log_ratios(levels)
        used = [i for i, zero in enumerate(zero_alpha) if i == 0 or not zero]
        path, steps = [levels[i] for i in used], log_q[used]
        predictor = with_states(data_weights(self.variable, steps, self.order - 1), path, u.device)
        corrected = data_weights(self.variable, steps, self.order - 1, corrector=True)
        corrector = with_states(corrected, path, u.device, from_first=self.order - 1)
        final_nodes = self._last_nodes(log_q, zero_alpha)
        at_zero = lagrange(self.variable(log_q[final_nodes]), self._end(log_q)[None])[:, 0]  # the polynomial at q = 0
        (final_weights,) = to_device([list(at_zero) if at_zero.ndim > 1 else at_zero.tolist()], u.device)
        values: list[Tensor] = []  # the newest first
        final_values: list[Tensor] = []  # those at `final_nodes`
        start = before = u  # the corrected state one level back
        for number, (t, s) in enumerate(pairwise(levels)):
            prediction = denoiser(u, t, **cond)
            values = [prediction.x0, *values][: self.order]
            if number in final_nodes:
                final_values = [prediction.x0, *final_values]
            if number > 0:
                u = weighted_sum(next(corrector), [start if number < self.order else before, *values])
            before = u
            u = ddim_step(s, prediction) if zero_alpha[number + 1] else weighted_sum(next(predictor), [u, *values])
            yield u
        last = denoiser(u, levels[-1], **cond).x0
        yield weighted_sum(final_weights, [last, *final_values])

    def _last_nodes(self, log_q: Tensor, zero_alpha: Sequence[bool]) -> list[int]:
        """Indices of the levels of the final extrapolation: the last first, at most `order` of them.

        They lie at least half as far apart as the last level lies from q = 0: closer values would amplify rounding and
        the network's errors.
        """
        nodes = self.variable(log_q)
        gap = 0.5 * (nodes[-1] - self._end(log_q))
        usable = torch.tensor([i == 0 or not zero for i, zero in enumerate(zero_alpha)])
        chosen = [len(log_q) - 1]
        while len(chosen) < self.order and (last := chosen[-1]) > 0:
            far = (nodes[:last] - nodes[last] >= gap).reshape(last, -1).all(1) & usable[:last]
            if not bool(far.any()):
                break
            chosen.append(int(far.nonzero()[-1]))
        return chosen

    def _end(self, log_q: Tensor) -> Tensor:
        """The interpolation variable at q = 0."""
        return self.variable(torch.full_like(log_q[0], -math.inf))
