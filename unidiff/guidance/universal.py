"""Guidance by any energy of clean data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.guidance.likelihood import LikelihoodGuidance
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["UniversalGuidance"]


class UniversalGuidance(LikelihoodGuidance):
    """eps + scale sigma grad energy(E[x0 | u]), through the model (Bansal et al. 2023, eq. 6, "forward guidance").

    The energy knows clean data alone: the loss of a classifier, a distance from a measurement, a property that
    samples should have. E[exp(-energy(x0)) | u] is replaced by exp(-energy(E[x0 | u])); with the energy
    |y - A x0|^2 / (2 s^2) and scale 1 this is `inverse.DPS`. For Gaussian data and a linear energy it is exact:
    samples of covariance C move by -scale C grad energy. Elsewhere it is an approximation, worst at high noise.

    Each evaluation is one of the model, with a backward pass.

    Args:
        model: The model, differentiable in its state, conditional or not.
        energy: Maps samples (B, *shape) to one number each, (B,), differentiably. Lower is wanted.
        scale: A number, or (B,).
        chunk: Samples whose gradients are computed together, >= 1; bounds the memory, without effect on the samples.

    Raises:
        ParameterError: At the first evaluation, if the energy is not one number for each sample or does not depend on
            them differentiably.
    """

    def __init__(
        self, model: Denoiser, energy: Callable[[Tensor], Tensor], scale: float | Tensor = 1.0, chunk: int = 64
    ) -> None:
        super().__init__(model, model.conditions or (), "universal guidance", scale, chunk)
        self.required = dict(model.required)  # the conditions are the model's own, as optional as they are there
        self.energy = energy

    def log_likelihood(self, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """-energy(E[x0 | u]), (B,)."""
        return self._log_likelihood(self.model(u, level, **cond))

    def with_gradient(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Tensor]:
        """The model's own prediction and the gradient through it, of one evaluation."""
        predictions: list[Prediction] = []

        def noted(state: Tensor, at: Level, **own: Tensor) -> Tensor:
            predictions.append(self.model(state, at, **own))
            return self._log_likelihood(predictions[-1])

        gradient, kept = self._gradients(noted, u, level, cond), torch.is_grad_enabled()
        parts: Any = zip(*((one.x0, one.eps, one.variance_interpolation) for one in predictions))
        joined: Any = (None if part[0] is None else torch.cat(part) for part in parts)
        x0, eps, learned = (part if part is None or kept else part.detach() for part in joined)
        return Prediction(x0, eps, level, learned), gradient

    def _log_likelihood(self, prediction: Prediction) -> Tensor:
        x = self.process.basis.inverse(prediction.x0)
        energy = self.energy(x)
        if not isinstance(energy, Tensor) or energy.shape != (len(x),):
            found = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
            raise ParameterError("energy", f"must return one number for each sample, ({len(x)},), got {found}.")
        if not energy.requires_grad:
            raise ParameterError("energy", "its value has no gradient: no part of it or of the model may be detached.")
        return -energy
