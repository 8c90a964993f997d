"""Classifier-free guidance: along the line from the unconditional to the conditional prediction of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unidiff.condition.check import condition_of, null_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.guidance.base import Guided, check_scale, extrapolate, repeat_level, row_scale
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["ClassifierFree"]


class ClassifierFree(Guided):
    """Classifier-free guidance: null + scale (conditional - null) (Ho & Salimans 2022, eq. 6, with w = scale - 1).

    By Bayes' rule the score becomes grad log p(u) + scale grad log p(y | u), that of p(u) p(y | u)^scale. Conditional
    and null are evaluated as one batch of twice the size. With a negative condition n in place of the null it is that
    of p(u | n) (p(u | y) / p(u | n))^scale. Guiding some of several conditions, y of (y, z), gives
    p(u | z) p(y | u, z)^scale: one guided model around another has a scale for each.

    Args:
        model: A conditional model, trained with condition dropout.
        scale: 1 is the conditional model, in one evaluation; 0 the unconditional one. A number, or (B,).
        negative: Values by name to use in place of the null condition: one row, or (B, ...).
        names: The conditions that guide; the others are the same in both predictions. None for all of the model's but
            those of control branches.

    Raises:
        ParameterError: If the model is unconditional, a name is not that of one of its conditions, or a negative value
            is not one of them.
    """

    def __init__(
        self,
        model: Denoiser,
        scale: float | Tensor,
        negative: Mapping[str, Tensor] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(model)
        every = [condition.name for condition in model.conditions or () if getattr(condition, "guides", True)]
        self.names = tuple(every if names is None else [names] if isinstance(names, str) else names)
        if every and not self.names:
            raise ParameterError("names", f"must be some of the model's conditions ({', '.join(every)}), got none")
        if not self.names:
            problem = "the model is unconditional; classifier-free guidance needs one trained with `conditioning`"
            if model.conditions is None:
                problem = "the conditions of the model are unknown; pass those that guide, as in names=['label']"
            raise ParameterError("model", problem)
        require(len({*self.names}) == len(self.names), "names", self.names, "different names")
        conditions = {name: condition_of(model, name) for name in self.names}
        self.negative = {}
        for name, value in (negative or {}).items():
            if name not in conditions:
                allowed = f"among the conditions that guide ({', '.join(conditions)})"
                raise ParameterError("negative", f"must be {allowed}, got {name!r}")
            rows = len(value) if isinstance(value, Tensor) and value.ndim else 1
            try:
                self.negative[name] = conditions[name].check(value, rows)
            except ParameterError as error:
                raise ParameterError(f"negative.{name}", error.problem) from error
        self.required = {**model.required, **dict.fromkeys(self.names, "classifier-free guidance")}
        self.scale = check_scale(scale)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`; the unguided prediction is the conditional one."""
        scale = row_scale(self.scale, u)
        if not isinstance(scale, Tensor) and scale == 1:
            plain = self.unguided(u, level, **cond)
            return plain, plain
        cond = {**cond, **{name: condition_of(self.model, name).padded(cond[name]) for name in self.names}}
        guiding = {name: cond[name] for name in self.names if name not in self.negative}
        there = {**cond, **null_conditions(guiding, self.model), **self._negative(u)}
        both = {name: torch.cat([value, there[name].to(value.device)]) for name, value in cond.items()}
        x0, eps, _, variance = self.model(torch.cat([u, u]), repeat_level(level), **both)
        (x0, x0_null), (eps, eps_null) = x0.chunk(2), eps.chunk(2)
        plain = Prediction(x0, eps, level, None if variance is None else variance[: len(u)])
        return plain, extrapolate(scale, plain, Prediction(x0_null, eps_null, level))

    def _negative(self, u: Tensor) -> dict[str, Tensor]:
        """The negative conditions of a batch."""
        for name, value in self.negative.items():
            if len(value) not in (1, len(u)):
                remedy = "pass one row, or one for each sample outside a model that works in chunks"
                raise ParameterError(f"negative.{name}", f"got {len(value)} rows for {len(u)} samples; {remedy}.")
        rows = {name: value.expand(len(u), *value.shape[1:]) for name, value in self.negative.items()}
        return {name: value.to(u.device, non_blocking=True) for name, value in rows.items()}
