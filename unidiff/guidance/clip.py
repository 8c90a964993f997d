"""Guidance by the similarity of noisy images and captions."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.condition.base import named
from unidiff.contrastive import ContrastiveModel
from unidiff.denoiser import Denoiser
from unidiff.guidance.likelihood import LikelihoodGuidance, require_same
from unidiff.process.level import Level

__all__ = ["CLIPGuidance"]


class CLIPGuidance(LikelihoodGuidance):
    """eps - scale sigma grad f(u, y), with f a contrastive model's (Nichol et al. 2021, eq. 9, in terms of eps).

    At the optimum of InfoNCE f is log p(y | u) - log p(y) and a constant, so this is `ClassifierGuidance` to a caption:
    with an unconditional model a scale of 1 is the exact conditional one. The conditions are passed to the model as
    well if it has them. Rows with an empty caption are not guided.

    Args:
        model: The model, conditional or not.
        encoder: A contrastive model trained on the noisy states of the same process.
        scale: A number, or (B,).
        chunk: Samples whose gradients are computed together, >= 1; bounds the memory, without effect on the samples.
    """

    def __init__(self, model: Denoiser, encoder: ContrastiveModel, scale: float | Tensor, chunk: int = 64) -> None:
        super().__init__(model, encoder.conditions, "CLIP guidance", scale, chunk)
        same = {name: (getattr(encoder, name), getattr(model, name)) for name in ("process", "shape")}
        own = {condition.name: (condition, named(model.conditions, condition.name)) for condition in encoder.conditions}
        require_same("encoder", {**same, **own})
        self.encoder = encoder

    def log_likelihood(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """F of each state with its own conditions, (B,); 0 where all of these are the null ones."""
        given = [(cond[own.name] != own.null(1, cond[own.name])).reshape(len(u), -1).any(1) for own in self.asked]
        return torch.where(torch.stack(given).any(0), self.encoder.similarity(u, level, **cond), 0.0)
