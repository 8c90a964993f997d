"""The exact contrastive model of a mixture whose components have attributes, such as digits in colours."""

from __future__ import annotations

import torch
from torch import Tensor

import unidiff as ud
from unidiff.process.level import Level


class AttributePairs(ud.ContrastiveModel):
    """F(u, y) = log p(y | u) - log p(y), where caption y says that the component is one of some.

    Args:
        mixture: The mixture.
        members: Which components each caption fits, (captions, K) bool; by default each its own.
        weights: The weights of the components, (K,); equal ones by default.
    """

    others: Tensor
    log_prior: Tensor

    def __init__(self, mixture: ud.GaussianMixture, members: Tensor | None = None, weights: Tensor | None = None):
        super().__init__()
        count = len(mixture.means)
        members = torch.eye(count, dtype=torch.bool) if members is None else members
        weights = torch.full((count,), 1 / count, dtype=torch.float64) if weights is None else weights
        self.mixture, self.process = mixture, mixture.process
        self.conditions = (ud.Label(len(members)),)
        self.register_buffer("others", torch.zeros(members.shape).masked_fill(~members, -torch.inf).double())
        self.register_buffer("log_prior", (self.others + weights.log()).logsumexp(1))

    def similarities(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        each = self.mixture.log_joint(u, level).log_softmax(1)  # log p(k | u)
        every = (each[:, None] + self.others.to(each)).logsumexp(2) - self.log_prior.to(each)
        return every[:, cond["label"].clamp(min=0)].to(u.dtype)
