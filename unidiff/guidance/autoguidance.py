"""Autoguidance: along the line from a weaker version of a model to the model itself."""

from __future__ import annotations

from torch import Tensor

from unidiff.condition.check import require_alike
from unidiff.denoiser import Denoiser
from unidiff.guidance.base import Guided, check_scale, extrapolate, row_scale
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["AutoGuidance"]


class AutoGuidance(Guided):
    """A model guided by a weaker version of itself: weaker + scale (model - weaker) (Karras et al. 2024).

    The weaker one is smaller or was trained for less time, on the same data and conditions: both err in the same
    directions, and the line leads away from the errors.

    Args:
        model: The model.
        weaker_model: The weaker one, of the same process and conditions.
        scale: 1 is the model alone, 0 the weaker one. A number, or (B,).
    """

    def __init__(self, model: Denoiser, weaker_model: Denoiser, scale: float | Tensor) -> None:
        super().__init__(model)
        known = ["shape"] if None not in (model.shape, weaker_model.shape) else []
        require_alike("weaker_model", weaker_model, model, "process", *known, "conditions")
        self._copy_interface(model, weaker_model)
        self.weaker_model = weaker_model
        self.scale = check_scale(scale)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`."""
        scale = row_scale(self.scale, u)
        plain = self.unguided(u, level, **cond)
        if not isinstance(scale, Tensor) and scale == 1:
            return plain, plain
        return plain, extrapolate(scale, plain, self.weaker_model(u, level, **cond))
