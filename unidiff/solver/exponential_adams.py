"""The default solver: exponential Adams-Bashforth-Moulton steps in a variable that is finite at both ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.level import Level, Scale, once_for_grid
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
from unidiff.solver.order import FINITE, values_per_step

__all__ = ["ExponentialAdams"]


# Gauss-Legendre on [0, 1]: exact for polynomials up to degree 5.
_ROOT = 0.6**0.5 / 2
_FRACTIONS = torch.tensor([0.5 - _ROOT, 0.5, 0.5 + _ROOT], dtype=torch.float64)
_SHARES = torch.tensor([5 / 18, 8 / 18, 5 / 18], dtype=torch.float64)


class _Weights(NamedTuple):
    """Those of all steps of a run.

    Attributes:
        predictor: For each step those of the state and of the values, the newest first.
        corrector: The same for the correction at its end.
        zero_alpha: For each level whether alpha is 0 in some mode.
        small: Whether the run ends with the integral of eps.
        final_nodes: The levels of the values that it needs.
        final_weights: Their weights.
    """

    predictor: Iterable[list[Scale]]
    corrector: Iterable[list[Scale]]
    zero_alpha: list[bool]
    small: bool
    final_nodes: list[int]
    final_weights: list[Scale]


@dataclass(frozen=True)
class ExponentialAdams(Solver):
    """x0 along the flow as a polynomial in w = -asinh(high / sqrt(q^2 + low^2)), q = sigma / alpha; the default.

    Predictor: the exponential Adams-Bashforth step through the last order - 1 values of x0. Corrector: the
    Adams-Moulton step that takes in the value at the new time as well, which the next step needs anyway (as in UniPC,
    Zhao et al. 2023), so a step costs one evaluation. The first order - 1 corrections integrate from the start with
    all available values, which removes the errors of the first, lower-order steps. The order falls where the polynomial
    would be continued too far (`unidiff.solver.order`), as in the long last step of Uniform.

    The variable is chosen so that x0 is smooth in it. Between `low` and `high`, w is log q plus a constant. Far below,
    it is q^2: the density of the noisy data is a smooth function of q^2 there, and so is x0. Far above, it is 1 / q: x0
    departs from the mean of the data in proportion. For one Gaussian, x0 - mean is proportional to (C + q^2)^(-1/2), C
    the variance. As it is finite at alpha = 0, the first steps have full order. Instead of a denoise, which is of first
    order, the run ends with the integral of eps from the last level to q = 0, eps as the polynomial in q through its
    last values; where the last level has more noise than data, or modes differ, with x0 continued to q = 0.

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
        made = once_for_grid(levels, self, lambda: self._weights(levels, u.device))
        predictor, corrector = iter(made.predictor), iter(made.corrector)
        zero_alpha, small, final_nodes, final_weights = made[2:]
        values: list[Tensor] = []  # the newest first
        final_values: list[Tensor] = []  # those at `final_nodes`
        start = before = u  # the corrected state one level back
        for number, (t, s) in enumerate(pairwise(levels)):
            prediction = denoiser(u, t, **cond)
            values = [prediction.x0, *values][: self.order]
            if number in final_nodes:
                final_values = [prediction.eps if small else prediction.x0, *final_values]
            if number > 0:
                weights = next(corrector)  # of the state and of number + 1 values, if it begins at the first level
                u = weighted_sum(weights, [start if len(weights) == number + 2 else before, *values])
            before = u
            u = ddim_step(s, prediction) if zero_alpha[number + 1] else weighted_sum(next(predictor), [u, *values])
            yield u
        prediction = denoiser(u, levels[-1], **cond)
        if small:
            yield weighted_sum([1 / levels[-1].alpha, *final_weights], [u, prediction.eps, *final_values])
        else:
            yield weighted_sum(final_weights, [prediction.x0, *final_values])

    def _weights(self, levels: Sequence[Level], device: torch.device) -> _Weights:
        log_q, zero_alpha = log_ratios(levels)
        used = [i for i, zero in enumerate(zero_alpha) if i == 0 or not zero]
        path, steps = [levels[i] for i in used], log_q[used]
        # Distances are those in log q, but finite at both ends; x0 changes little below low / 10.
        distance = steps if steps.ndim > 1 else replace(self, low=self.low / 10).variable(steps)
        counts = values_per_step(distance, self.order - 1, FINITE)
        predictor = with_states(data_weights(self.variable, steps, counts), path, device)
        corrected = data_weights(self.variable, steps, counts, corrector=True)
        corrector = with_states(corrected, path, device, corrector=True)
        small = log_q.ndim == 1 and float(log_q[-1]) < 0
        final_nodes = self._last_nodes(log_q, zero_alpha, small)
        end = self._noise_to_zero(log_q[final_nodes]) if small else self._data_at_zero(log_q[final_nodes])
        (final_weights,) = to_device([list(end) if end.ndim > 1 else end.tolist()], device)
        return _Weights(predictor, corrector, zero_alpha, small, final_nodes, final_weights)

    def _last_nodes(self, log_q: Tensor, zero_alpha: Sequence[bool], small: bool) -> list[int]:
        """Indices of the levels of the final extrapolation: the last first, at most `order` of them.

        They lie at least a fraction as far apart as the last level lies from q = 0: closer values would amplify
        rounding and the network's errors. The fraction is half where x0 is continued, and less for the integral of eps,
        to which the far end contributes no more than the near one.
        """
        nodes = log_q.exp() if small else self.variable(log_q)
        gap = 0.3 * nodes[-1] if small else 0.5 * (nodes[-1] - self._end(log_q))
        chosen = [len(log_q) - 1]
        while len(chosen) < self.order and (last := chosen[-1]) > 0:
            far = (nodes[:last] - nodes[last] >= gap).reshape(last, -1).all(1) & ~torch.tensor(zero_alpha[:last])
            if not bool(far.any()):
                break
            chosen.append(int(far.nonzero()[-1]))
        return chosen

    def _noise_to_zero(self, log_q: Tensor) -> Tensor:
        """Weights of eps in x(0) = u / alpha - int_0^q eps dq, the polynomial in q through the values at these levels.

        Towards q = 0 eps is linear in q where the data are smooth and constant where they are a point or a surface.
        """
        q = log_q.exp()
        return -q[0] * (lagrange(q, q[0] * _FRACTIONS) * _SHARES).sum(1)

    def _data_at_zero(self, log_q: Tensor) -> Tensor:
        """Weights of x0 in its polynomial through the values at these levels, at q = 0."""
        return lagrange(self.variable(log_q), self._end(log_q)[None])[:, 0]

    def _end(self, log_q: Tensor) -> Tensor:
        """The interpolation variable at q = 0."""
        return self.variable(torch.full_like(log_q[0], -math.inf))
