"""UniPC for the noise prediction: UniPC itself, with the roles of data and noise exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.noise import Noise
from unidiff.prediction import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level
from unidiff.solver.base import require_positive_alpha
from unidiff.solver.exponential import ddim_step, log_ratios
from unidiff.solver.order import SHORT, Continuation
from unidiff.solver.unipc import UniPC

__all__ = ["UniPCNoise"]


@dataclass(frozen=True)
class UniPCNoise(UniPC):
    """UniP and UniC for the noise prediction (Zhao et al. 2023, algorithms 1 to 4).

    u = alpha x0 + sigma eps, and the equation of its flow, stay as they are if data and noise, alpha and sigma, change
    places; log(alpha / sigma) changes its sign, and the step of the data prediction becomes that of the noise
    prediction. Steps from alpha = 0 are DDIM's.

    Args:
        order: p, 1 to 3.
        variant: B(h); see UniPC.
        published_orders: Whether the order falls as published; see UniPC.
    """

    @property
    def limits(self) -> Continuation:
        return SHORT

    def check(self, process: Process) -> None:
        if process.basis.shape:
            require_positive_alpha(process, "UniPCNoise steps in u / alpha", "Use UniPC.")

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        zero_alpha = log_ratios(levels)[1]
        ends = [i for i, zero in enumerate(zero_alpha) if not zero]
        first, last = (ends[0], ends[-1]) if ends else (len(levels) - 1,) * 2
        for t, s in pairwise(levels[: first + 1]):
            u = ddim_step(s, denoiser(u, t, **cond))
            yield u
        if not ends:
            yield denoiser(u, levels[-1], **cond).x0
            return
        own = levels[first : last + 1]
        inner = [_exchange(level) for level in own]
        exchanged = _Exchanged(denoiser, inner, own)
        states = super().states(exchanged, u, inner, noise, **cond)
        for _ in inner[1:]:
            u = next(states)
            yield u
        next(states)  # would be the noise; the evaluation is what counts
        prediction = exchanged.latest[0]
        for s in levels[last + 1 :]:
            yield (u := ddim_step(s, prediction))
            prediction = denoiser(u, s, **cond)
        yield prediction.x0


def _exchange(level: Level) -> Level:
    """The level at which data are noise and noise is data."""
    return Level(level.time, level.sigma, level.alpha, -level.log_snr, _rates=lambda: level._both_rates()[::-1])


class _Exchanged(Denoiser):
    """A denoiser at exchanged levels: what it calls x0 is the noise."""

    def __init__(self, denoiser: Denoiser, exchanged: Sequence[Level], levels: Sequence[Level]) -> None:
        super().__init__()
        self.process = denoiser.process
        self.denoiser = denoiser
        self.latest: list[Prediction] = []  # a list, as attributes of an nn.Module take long to set
        self._levels = dict(zip(map(id, exchanged), levels))  # which serve all that was made for their grid

    def forward(self, u: Tensor, level: Level, **cond: Any) -> Prediction:
        prediction = self.denoiser(u, self._levels[id(level)], **cond)
        self.latest[:] = [prediction]
        return Prediction(prediction.eps, prediction.x0, level)
