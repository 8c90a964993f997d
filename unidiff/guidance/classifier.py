"""Guidance by a classifier of noisy states."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.classifier import Classifier
from unidiff.condition.base import named
from unidiff.condition.vector import Label
from unidiff.denoiser import Denoiser
from unidiff.guidance.likelihood import LikelihoodGuidance, require_same
from unidiff.process.level import Level

__all__ = ["ClassifierGuidance"]


class ClassifierGuidance(LikelihoodGuidance):
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
        label = Label(classifier.classes, name=classifier.predicts)
        super().__init__(model, (label,), "classifier guidance", scale, chunk)
        same = {name: (getattr(classifier, name), getattr(model, name)) for name in ("process", "shape")}
        theirs = classifier.classes, getattr(named(model.conditions, label.name), "classes", None)
        require_same("classifier", {**same, "classes": theirs})
        self.classifier = classifier
        self.predicts = label.name

    def log_likelihood(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """Log p(label | u), (B,); 0 where the label is -1."""
        label = cond[self.predicts]
        log_probability = self.classifier.log_prob(u, level, label.clamp(min=0))
        return torch.where(label >= 0, log_probability, 0.0)
