"""Score matching without a target: the score of the noisy data from its own divergence.

Integration by parts frees the Fisher divergence from the true score (Hyvarinen 2005, theorem 1; thesis eq. 3.8-3.9):

    E |s(u) - grad log p_t(u)|^2 = E [2 tr(grad s(u)) + |s(u)|^2] + a constant,        u = u_t ~ p_t,

where the constant, E |grad log p_t|^2, does not depend on the network. The objectives here differ in how they estimate
the trace: by v^T (grad s) v for directions v. The score is that of the model's prediction, so they train a network of
any parameterization. Their losses may be negative.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, require_shape, require_whole
from unidiff.objective.base import Objective
from unidiff.objective.weighting import EpsilonWeighting, Weighting
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["ExplicitScoreMatching", "SlicedScoreMatching", "SlicedScoreMatchingVR"]


@dataclass(frozen=True)
class _ScoreMatching(Objective):
    """A weight times 2 tr(grad s) + |s|^2, a mean over pixels.

    The weight w(t) of `Denoising` on the network's target stands for w (determinant sigma / alpha)^2 on the score's
    squared error, and that is the factor here. So for any network, parameterization and weighting the expected loss is
    that of `Denoising` less a number that depends on time alone: with EpsilonWeighting the factor is sigma^2
    and the number 1.
    """

    weighting: Weighting = field(default_factory=EpsilonWeighting)
    differentiates_twice: ClassVar[bool] = True

    def check(self, process: Process) -> None:
        """Reject a process whose modes differ: a divergence has one weight, not one for each mode."""
        super().check(process)
        if process.basis.shape:
            count = f"{process!r} has {math.prod(process.basis.shape)}. Use Denoising."
            raise ParameterError("objective", f"{type(self).__name__} needs one noise level for all modes; {count}")

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), up to a constant."""
        require_shape("eps", "noise", eps.shape, (len(u0), *self.noise_shape(denoiser, tuple(u0.shape[1:]))))
        eps, directions = self._directions(eps)
        u = denoiser.process.perturb(u0, eps, level).detach().requires_grad_()
        # Fused attention, of transformers on a GPU, has no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            score = denoiser(u, level, **cond).score
            forms = [2 * _quadratic_form(v, score, u) + self._square(v, score) for v in directions]
            return self._factor(denoiser, level, u) * torch.stack(forms).mean(0) / u0[0].numel()

    def _factor(self, denoiser: NeuralDenoiser, level: Level, u: Tensor) -> Tensor:
        """The weight on the score's squared error, (B,); 0 at alpha = 0, where the score is -u for any data."""
        parameterization = denoiser.parameterization
        error = torch.as_tensor(parameterization.determinant(level) * level.sigma / level.alpha)
        weight = self.weighting.weight_on(denoiser.process, parameterization, level, u) * error**2
        return torch.where(torch.as_tensor(level.alpha) == 0, 0.0, weight).flatten()

    @abstractmethod
    def _directions(self, noise: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The noise of the state, (B, *modes), and directions v, whose v v^T are I on average, each (B, *modes)."""

    def _square(self, v: Tensor, score: Tensor) -> Tensor:
        """|s|^2 of each sample, or an unbiased estimate from direction v, (B,)."""
        return score.square().flatten(1).sum(1)


def _quadratic_form(v: Tensor, score: Tensor, u: Tensor) -> Tensor:
    """v^T (grad s) v of each sample, (B,): one backward pass through the network (thesis eq. 3.13)."""
    (gradient,) = torch.autograd.grad(score, u, v, create_graph=True)
    return (gradient * v).flatten(1).sum(1)


@dataclass(frozen=True)
class ExplicitScoreMatching(_ScoreMatching):
    """E w(t) [2 tr(grad s) + |s|^2] with the whole trace (Hyvarinen 2005, theorem 1; thesis eq. 3.9, twice it).

    One backward pass through the network for each of the D numbers of a sample, all kept for the step: for points and
    small vectors. Vincent 2011 calls it implicit score matching.

    Args:
        weighting: The weight w(t), as in Denoising: on the squared error of what the network predicts.
    """

    def _directions(self, noise: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The axes, scaled by sqrt(D): their v v^T average to I exactly."""
        size = noise[0].numel()
        axes = math.sqrt(size) * torch.eye(size, dtype=noise.dtype, device=noise.device)
        return noise, [axis.reshape(noise.shape[1:]).expand_as(noise) for axis in axes]


@dataclass(frozen=True)
class SlicedScoreMatchingVR(_ScoreMatching):
    """E w(t) [2 v^T (grad s) v + |s|^2] with random signs v (SSM-VR; Song, Garg, Shi & Ermon 2019; thesis eq. 3.12).

    The mean of (v^T s)^2 is known, so only the trace is left to chance. In few dimensions the two chances can cancel;
    in many this is the one to use. One backward pass through the network per direction, whatever the size. Of all
    directions with mean 0 and covariance I, independent signs estimate a trace with the least variance (Hutchinson
    1990).

    Args:
        weighting: The weight w(t), as in Denoising: on the squared error of what the network predicts.
        projections: Directions per sample, at least 1.
    """

    projections: int = 1

    def __post_init__(self) -> None:
        require_whole("projections", self.projections, 1)

    def noise_shape(self, model: NeuralDenoiser, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The noise of the state, then a normal sample for the signs of each direction."""
        return (1 + self.projections, *shape)

    def _directions(self, noise: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        eps, *normal = noise.unbind(1)
        return eps, [torch.ones_like(v).copysign(v) for v in normal]


@dataclass(frozen=True)
class SlicedScoreMatching(SlicedScoreMatchingVR):
    """E w(t) [2 v^T (grad s) v + (v^T s)^2] with random signs v (SSM; Song, Garg, Shi & Ermon 2019, section 3).

    The score's error is matched along v alone.

    Args:
        weighting: The weight w(t), as in Denoising: on the squared error of what the network predicts.
        projections: Directions per sample, at least 1.
    """

    def _square(self, v: Tensor, score: Tensor) -> Tensor:
        return (v * score).flatten(1).sum(1).square()
