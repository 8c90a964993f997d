"""Classifier-free guidance: along the line from the unconditional to the conditional prediction of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.condition import null_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.guidance.base import Guided, check_scale, extrapolate, repeat_level, row_scale
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["ClassifierFree"]


class ClassifierFree(Guided):
    """Classifier-free guidance: null + scale (conditional - null) (Ho & Salimans 2022, eq. 6, with w = scale - 1).

    By Bayes' rule the score becomes grad log p(u) + scale grad log p(y | u), that of p(u) p(y | u)^scale. Conditional
    and null are evaluated as one batch of twice the size.

    Args:
        model: A conditional model, trained with condition dropout.
        scale: 1 is the conditional model, in one evaluation; 0 the unconditional one. A number, or (B,).

    Raises:
        ParameterError: If the model is unconditional.
    """

    def __init__(self, model: Denoiser, scale: float | Tensor) -> None:
        super().__init__(model)
        main = "image" if model.image is not None else "label" if model.classes is not None else None
        names = (main,) if main else model.condition_names
        if not names:
            problem = "the model is unconditional; classifier-free guidance needs one trained with `conditioning`"
            raise ParameterError("model", problem)
        self.required = dict.fromkeys(names, "classifier-free guidance")
        self.scale = check_scale(scale)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`; the unguided prediction is the conditional one."""
        scale = row_scale(self.scale, u)
        if not isinstance(scale, Tensor) and scale == 1:
            plain = self.unguided(u, level, **cond)
            return plain, plain
        null = null_conditions(cond)
        both = {name: torch.cat([value, null[name]]) for name, value in cond.items()}
        x0, eps, _, variance = self.model(torch.cat([u, u]), repeat_level(level), **both)
        (x0, x0_null), (eps, eps_null) = x0.chunk(2), eps.chunk(2)
        plain = Prediction(x0, eps, level, None if variance is None else variance[: len(u)])
        return plain, extrapolate(scale, plain, Prediction(x0_null, eps_null, level))
