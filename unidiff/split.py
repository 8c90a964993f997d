"""Two models of one process, each for a part of its times."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.condition.check import require_alike
from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["Split", "check_time"]


class Split(Denoiser):
    """A model, and another one below a time: a base model with a refiner, as in SDXL (Podell et al. 2023, from memory).

    E[x0 | u] is the refiner's where time < t, and the model's elsewhere. The exact score at each time depends on that
    time alone, so two exact models of the same data give one exact model, and a model split with itself is itself. An
    ensemble of experts over noise levels (Balaji et al. 2022, from memory) is a Split of Splits.

    Args:
        model: The model at times from t to 1.
        refiner: The model below t, of the same process, samples and conditions.
        t: Where they meet, from 0 (the model alone) to 1 (the refiner, but for t = 1 itself).

    Raises:
        ParameterError: If t is out of range, or the two differ in process, shape or conditions.
    """

    def __init__(self, model: Denoiser, refiner: Denoiser, t: float) -> None:
        super().__init__()
        check_time(t)
        require_alike("refiner", refiner, model, "process", "shape", "conditions", "learned_variance")
        self._copy_interface(model, refiner)
        self.model = model
        self.refiner = refiner
        self.t = float(t)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The prediction of the model that is responsible; see `Denoiser.forward`.

        With one time per sample both are evaluated on the whole batch, so that the host waits for no time.
        """
        if not isinstance(level.time, Tensor):
            prediction: Prediction = (self.refiner if level.time < self.t else self.model)(u, level, **cond)
            return prediction
        below = level.time < self.t
        pairs = zip(self.refiner(u, level, **cond), self.model(u, level, **cond))
        x0, eps, _, variance = (torch.where(below, a, b) if isinstance(a, Tensor) else a for a, b in pairs)
        return Prediction(x0, eps, level, variance)


def check_time(t: float) -> None:
    """Raise a ParameterError unless this is a time at which two models may meet."""
    require(not isinstance(t, bool) and 0 <= t <= 1, "t", t, "a number from 0 to 1")
