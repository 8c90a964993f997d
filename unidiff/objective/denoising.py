"""Denoising, the regression that DDPM and denoising score matching share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from unidiff.denoiser import NeuralDenoiser
from unidiff.objective.base import Objective
from unidiff.objective.weighting import UniformWeighting, Weighting
from unidiff.process.level import Level, is_one

__all__ = ["Denoising"]


@dataclass(frozen=True)
class Denoising(Objective):
    """E w(t) |network(u_t, t) - (a x0 + b eps)|^2, a mean over pixels (Vincent 2011; Ho et al. 2020, eq. 14).

    With Eps this is DDPM's loss, with Score it is denoising score matching (thesis eq. 3.11 and 3.20).

    Args:
        weighting: The weight w(t).
    """

    weighting: Weighting = field(default_factory=UniformWeighting)
    couples: ClassVar[bool] = True

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,)."""
        u = denoiser.process.perturb(u0, eps, level)
        return self._simple(denoiser, denoiser.output(u, level, **cond), u0, eps, level)

    def _simple(self, denoiser: NeuralDenoiser, output: Tensor, u0: Tensor, eps: Tensor, level: Level) -> Tensor:
        error = output - denoiser.parameterization.target(u0, eps, level)
        root = self.weighting.root(denoiser.parameterization, level, u0, denoiser.process)
        # The root of the weight meets the error before the square: 1/sigma^4 would not fit low-precision ranges.
        return (error if is_one(root) else root * error).square().flatten(1).mean(1)
