"""Guidance along the line through two predictions: classifier-free guidance and autoguidance."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.condition import null_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.guidance.base import Guided, check_scale, extrapolate, repeat_level, row_scale
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["AutoGuidance", "ClassifierFree"]


class ClassifierFree(Guided):
    """Classifier-free guidance: null + scale (conditional - null) (Ho & Salimans 2022, eq. 6, with w = scale - 1).

    By Bayes' rule the score becomes grad log p(u) + scale grad log p(y | u), that of p(u) p(y | u)^scale. Conditional
    and null are evaluated as one batch of twice the size. Without conditions it is the model without conditions.

    Args:
        model: A model that knows conditions and was trained without them at times.
        scale: 1 is the plain conditional model, at the cost of one; 0 the unconditional one. A number, or (B,).

    Raises:
        ParameterError: If the model is unconditional or the scale is not finite.
    """

    def __init__(self, model: Denoiser, scale: float | Tensor) -> None:
        super().__init__(model)
        if model.classes is None and model.image is None:
            problem = "it was trained without conditions, so there is none to guide to. Train one with `conditioning`."
            raise ParameterError("model", problem)
        self.scale = check_scale(scale)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """The conditional prediction and the guided one; see `Guided.both`."""
        scale = row_scale(self.scale, u)
        if not cond or (not isinstance(scale, Tensor) and scale == 1):
            plain = self.unguided(u, level, **cond)
            return plain, plain
        null = null_conditions(cond)
        both = {name: torch.cat([value, null[name]]) for name, value in cond.items()}
        x0, eps, _, variance = self.model(torch.cat([u, u]), repeat_level(level), **both)
        (x0, x0_null), (eps, eps_null) = x0.chunk(2), eps.chunk(2)
        plain = Prediction(x0, eps, level, None if variance is None else variance[: len(u)])
        return plain, extrapolate(scale, plain, Prediction(x0_null, eps_null, level))


class AutoGuidance(Guided):
    """A model guided by a weaker version of itself: weaker + scale (model - weaker) (Karras et al. 2024).

    The weaker one is smaller or was trained for less time, on the same data and conditions: both err in the same
    directions, and the line leads away from the errors.

    Args:
        model: The model.
        weaker_model: The weaker one, of the same process.
        scale: 1 is the model alone, 0 the weaker one. A number, or (B,).

    Raises:
        ParameterError: If the two are models of different processes, or the scale is not finite.
    """

    def __init__(self, model: Denoiser, weaker_model: Denoiser, scale: float | Tensor) -> None:
        super().__init__(model)
        if weaker_model.process != model.process:
            problem = f"it is a model of {weaker_model.process!r}, the other one of {model.process!r}. Use Rescheduled."
            raise ParameterError("weaker_model", problem)
        if weaker_model.classes != model.classes:
            problem = f"it knows {weaker_model.classes or 'no'} classes, the other one {model.classes or 'none'}."
            raise ParameterError("weaker_model", problem)
        if weaker_model.image != model.image:
            problem = f"it knows images {weaker_model.image}, the other one {model.image}."
            raise ParameterError("weaker_model", problem)
        self.weaker_model = weaker_model
        self.scale = check_scale(scale)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """The model's prediction and the guided one; see `Guided.both`."""
        scale = row_scale(self.scale, u)
        plain = self.unguided(u, level, **cond)
        if not isinstance(scale, Tensor) and scale == 1:
            return plain, plain
        return plain, extrapolate(scale, plain, self.weaker_model(u, level, **cond))
