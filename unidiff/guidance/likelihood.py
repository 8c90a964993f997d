"""What guidance by a gradient shares: of a classifier, of the similarity of image and text, of an energy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unidiff.condition.base import Condition, named
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require_whole
from unidiff.guidance.base import Guided, check_scale, row_scale, slice_level
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["LikelihoodGuidance", "require_same"]

_NEGLIGIBLE = 1e-6  # alpha / sigma below which a float32 gradient is dominated by rounding


class LikelihoodGuidance(Guided):
    """eps - scale sigma grad log p(y | u), with the gradient of another model.

    Args:
        model: The model, conditional or not.
        asked: The conditions y of the other model.
        who: What the guidance is called in messages.
        scale: A number, or (B,).
        chunk: Samples whose gradients are computed together, >= 1.
    """

    def __init__(
        self, model: Denoiser, asked: Sequence[Condition], who: str, scale: float | Tensor, chunk: int
    ) -> None:
        super().__init__(model)
        require_whole("chunk", chunk)
        self.asked = tuple(asked)
        own = {condition.name for condition in self.asked if named(model.conditions, condition.name) is not None}
        self._hidden = {condition.name for condition in self.asked} - own  # from the model, which has none such
        if model.conditions is not None:
            self.conditions = (*model.conditions, *(own for own in self.asked if own.name in self._hidden))
        self.required = {**model.required, **{condition.name: who for condition in self.asked}}
        self.scale = check_scale(scale)
        self.chunk = chunk

    @abstractmethod
    def log_likelihood(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """Log p(y | u) of each sample up to a constant in u, (B,); 0 for those that are not guided.

        Args:
            u: States in mode coordinates, (B, *modes).
            level: Their times.
            **cond: The conditions y, each (B, ...), on the device of u.
        """

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's own prediction, with those of the conditions y that the model has."""
        own = {name: value for name, value in cond.items() if name not in self._hidden}
        return super().unguided(u, level, **own)

    def gradient(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """Grad log p(y | u) in u, (B, *modes); 0 where a sample is not guided."""
        return self._gradients(self.log_likelihood, u, level, cond)

    def _gradients(self, of: Callable[..., Tensor], u: Tensor, level: Level, cond: Mapping[str, Tensor]) -> Tensor:
        """The gradient of a number of each sample, (B,), in u, some samples at a time."""
        values = {}
        for condition in (own for own in self.asked if own.name in cond):
            condition.check_in_loop(cond[condition.name], len(u))
            values[condition.name] = condition.padded(cond[condition.name].to(u.device))
        rows = [slice(start, start + self.chunk) for start in range(0, len(u), self.chunk)]
        parts = [({name: value[row] for name, value in values.items()}, row) for row in rows]
        return torch.cat([self._gradient(of, u[row], slice_level(level, row), part) for part, row in parts])

    def _gradient(self, of: Callable[..., Tensor], u: Tensor, level: Level, cond: Mapping[str, Tensor]) -> Tensor:
        # A likelihood, or a sampling run with gradients, differentiates the gradient itself; else no graph is kept.
        deeper = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            state = u if deeper and u.requires_grad else u.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(of(state, level, **cond).sum(), state, create_graph=deeper)
        return gradient

    def with_gradient(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Tensor]:
        """The model's own prediction, and `gradient`."""
        asked = {own.name: cond[own.name] for own in self.asked if own.name in cond}
        return self.unguided(u, level, **cond), self.gradient(u, level, **asked)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`."""
        scale, alpha, sigma = row_scale(self.scale, u), level.alpha, level.sigma
        lost = alpha < _NEGLIGIBLE * sigma
        if any(not isinstance(none, Tensor) and none for none in (scale == 0, lost)):
            plain = self.unguided(u, level, **cond)
            return plain, plain
        plain, gradient = self.with_gradient(u, level, **cond)
        push = scale * sigma * gradient
        if isinstance(lost, Tensor):
            push = push.masked_fill(lost, 0.0)
            alpha = torch.where(lost, 1.0, alpha)
        return plain, Prediction(plain.x0 + sigma / alpha * push, plain.eps - push, level, plain.variance_interpolation)


def require_same(parameter: str, facts: dict[str, tuple[Any, Any]]) -> None:
    """Raise a ParameterError for the first fact, (theirs, the model's), that is known of both and differs."""
    for name, (theirs, ours) in facts.items():
        if None not in (theirs, ours) and theirs != ours:
            raise ParameterError(parameter, f"its {name} must be the model's, {ours!r}, got {theirs!r}.")
