"""Distillation: a network learns the prediction of another model (Hinton et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from unidiff.arguments import plain_arguments
from unidiff.condition.check import require_alike
from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import ParameterError
from unidiff.objective.denoising import Denoising
from unidiff.process.level import Level

__all__ = ["Distillation"]


@dataclass(frozen=True)
class Distillation(Denoising):
    """E w(t) |network(u_t, t) - (a X0 + b E)|^2, a mean over pixels, with X0 and E the teacher's prediction at u_t.

    The minimum is 0, reached where the network predicts what the teacher does. With the exact model of the data as
    teacher, X0 = E[x0 | u_t] and E = E[eps | u_t], so the loss is that of `Denoising` less the variance of its target
    given u_t, which no network changes: the gradients agree in expectation, and this one has less noise.

    The teacher may predict another parameterization, or be guided. In a recipe it is the run that `teacher` names.

    Args:
        weighting: The weight w(t), as in Denoising.
    """

    needs_teacher: ClassVar[bool] = True

    _teacher: Denoiser | None = field(default=None, init=False, repr=False, compare=False)

    @plain_arguments
    def with_teacher(self, teacher: Denoiser) -> Self:
        """The objective with its teacher, which is frozen; see `Objective.with_teacher`."""
        twin = replace(self)
        object.__setattr__(twin, "_teacher", teacher.eval().requires_grad_(False))
        return twin

    def check_model(self, model: NeuralDenoiser) -> None:
        """Reject a model without the teacher's process, samples and conditions; see `Objective.check_model`."""
        super().check_model(model)
        self._require_alike(model)

    def _require_alike(self, model: NeuralDenoiser) -> Denoiser:
        """The teacher, if it fits the model."""
        if (teacher := self._teacher) is None:
            problem = "Distillation has no teacher. Use Distillation().with_teacher(model), or `teacher` in a recipe."
            raise ParameterError("objective", problem)
        # A function or a foreign network need not say its shape or its conditions: it may take any.
        known = [name for name in ("shape", "conditions") if None not in (getattr(teacher, name), getattr(model, name))]
        require_alike("teacher", teacher, model, "process", *known)
        return teacher

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,)."""
        teacher = self._require_alike(denoiser)
        u = denoiser.process.perturb(u0, eps, level)
        with torch.no_grad():
            truth = teacher(u, level, **cond)
        return self._simple(denoiser, denoiser.output(u, level, **cond), truth.x0, truth.eps, level)
