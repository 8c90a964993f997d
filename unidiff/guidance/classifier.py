"""Guidance by a classifier of noisy states."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.classifier import Classifier
from unidiff.condition.base import named
from unidiff.condition.vector import Label
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require_whole
from unidiff.guidance.base import Guided, check_scale, row_scale, slice_level
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["ClassifierGuidance"]

_NEGLIGIBLE = 1e-6  # alpha / sigma below which a float32 gradient is dominated by rounding


class ClassifierGuidance(Guided):
    """eps - scale sigma grad log p(y | u) (Dhariwal & Nichol 2021, alg. 2; thesis algorithm 4, sigma = sqrt(1 - abar)).

    The thesis writes the gradient of p; it is that of log p, as in Dhariwal & Nichol: the score -eps / sigma becomes
    grad log p(u) + scale grad log p(y | u). The data move with the noise, x0 + scale sigma^2 / alpha grad log p(y | u).
    Where alpha / sigma < 1e-6 a state does not depend on its class: such modes, and all at such a time, are not guided,
    nor are rows with label -1. The label is passed to the classifier, and to the model as well if it has classes:
    then p(u | y) p(y | u)^scale is sampled, the conditional model at scale 0.

    Args:
        model: The model, conditional or not. With an unconditional one a scale of 1 is the exact conditional model, and
            0 the model itself.
        classifier: A classifier of the same process, classes and shape.
        scale: A number, or (B,).
        chunk: Samples whose gradients are computed together, >= 1; bounds the memory, without effect on the samples.
    """

    def __init__(self, model: Denoiser, classifier: Classifier, scale: float | Tensor, chunk: int = 64) -> None:
        super().__init__(model)
        self.label = Label(classifier.classes, name=classifier.predicts)
        own = named(model.conditions, self.label.name)
        for name, theirs, ours in (
            *((name, getattr(classifier, name), getattr(model, name)) for name in ("process", "shape")),
            ("classes", classifier.classes, getattr(own, "classes", None)),
        ):
            if None not in (theirs, ours) and theirs != ours:
                raise ParameterError("classifier", f"its {name} must be the model's, {ours!r}, got {theirs!r}.")
        require_whole("chunk", chunk)
        self.classifier = classifier
        self.passes = own is not None
        if model.conditions is not None and own is None:
            self.conditions = (*model.conditions, self.label)
        self.required = {**model.required, self.label.name: "classifier guidance"}
        self.scale = check_scale(scale)
        self.chunk = chunk

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's own prediction, conditioned on the label if the model has such a condition."""
        own = {name: value for name, value in cond.items() if name != self.label.name or self.passes}
        return super().unguided(u, level, **own)

    def gradient(self, u: Tensor, level: Level, label: Tensor) -> Tensor:
        """Grad log p(label | u) in u, (B, *modes); 0 where the label is -1."""
        self.label.check_in_loop(label, len(u))
        label = label.to(u.device)
        rows = [slice(start, start + self.chunk) for start in range(0, len(u), self.chunk)]
        return torch.cat([self._gradient(u[row], slice_level(level, row), label[row]) for row in rows])

    def _gradient(self, u: Tensor, level: Level, label: Tensor) -> Tensor:
        # A likelihood, or a sampling run with gradients, differentiates the gradient itself; else no graph is kept.
        deeper = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            state = u if deeper and u.requires_grad else u.detach().clone().requires_grad_()
            log_probability = self.classifier.log_prob(state, level, label.clamp(min=0))
            chosen = torch.where(label >= 0, log_probability, 0.0).sum()
            (gradient,) = torch.autograd.grad(chosen, state, create_graph=deeper)
        return gradient

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`."""
        scale = row_scale(self.scale, u)
        plain = self.unguided(u, level, **cond)
        if not isinstance(scale, Tensor) and scale == 0:
            return plain, plain
        alpha, sigma = level.alpha, level.sigma
        lost = alpha < _NEGLIGIBLE * sigma
        if not isinstance(lost, Tensor) and lost:
            return plain, plain
        push = scale * sigma * self.gradient(u, level, cond[self.label.name])
        if isinstance(lost, Tensor):
            push = push.masked_fill(lost, 0.0)
            alpha = torch.where(lost, 1.0, alpha)
        return plain, Prediction(plain.x0 + sigma / alpha * push, plain.eps - push, level, plain.variance_interpolation)
