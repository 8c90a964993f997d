"""Cross entropy: what the training of a classifier of noisy states minimises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unidiff.classifier import NeuralClassifier
from unidiff.objective.base import Objective
from unidiff.process.level import Level

__all__ = ["CrossEntropy"]


@dataclass(frozen=True)
class CrossEntropy(Objective[NeuralClassifier]):
    """E -log p(y | u_t), in nats (Dhariwal & Nichol 2021, section 4), least at the posterior given by Bayes' rule."""

    def losses(self, denoiser: NeuralClassifier, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), for the labels `label`, (B,)."""
        return -denoiser.log_prob(denoiser.process.perturb(u0, eps, level), level, cond["label"])
