"""Cross entropy: what the training of a classifier of noisy states minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unidiff.objective.base import Objective
from unidiff.process.level import Level

__all__ = ["CrossEntropy"]


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """E -log p(y | u_t), in nats (Dhariwal & Nichol 2021, section 4). Its least value is attained by Bayes' rule."""

    def losses(self, denoiser: Any, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), of a NeuralClassifier and labels `label`, (B,); see `Objective.losses`."""
        u = denoiser.process.perturb(u0, eps, level)
        log_probability: Tensor = denoiser.log_prob(u, level, cond["label"])
        return -log_probability
