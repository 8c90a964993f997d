"""RePaint: known pixels replaced in every prediction, and resampling by steps back and forth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import Noise
from unidiff.parameterization import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level, eps_of, noised
from unidiff.solver.ancestral import Ancestral
from unidiff.solver.base import OneStep, Solver
from unidiff.tensors import check_floats

__all__ = ["Replacement", "Resampling", "check_strength"]


class Replacement(Denoiser):
    """A model with some pixels fixed, always or until some time: their E[x0 | u] is replaced by the image.

    With any solver, such a pixel then follows a path of the forward process that ends in the image: a deterministic
    solver keeps its noise, a stochastic one renews it by the posterior q(u_s | u_t, x0). This is the replacement of
    Song et al. 2021, section 5 and appendix I.2, with noise that is consistent from step to step. The other pixels
    follow the unconditional score at the noisy known pixels, not the conditional score: samples are biased; see
    docs/inverse.md.

    With a strength between 0 and 1 a pixel is fixed while t > strength, and free from then on (Levin & Fried 2023,
    differential diffusion).

    Args:
        denoiser: The model.
        image: The image in pixels, (*shape), or one per sample, (B, *shape).
        strength: 0 where a pixel is known, 1 where it is free, in between fixed until t = strength. Broadcasts against
            the image.
    """

    replacement: Tensor
    strength: Tensor

    def __init__(self, denoiser: Denoiser, image: Tensor, strength: Tensor) -> None:
        super().__init__()
        own = denoiser.shape
        fits = own is None or image.shape in (own, (*image.shape[:1], *own))
        check_floats("image", image, own or ("*shape",), fits)
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self.register_buffer("replacement", image.clone())
        self.register_buffer("strength", check_strength(strength, image))

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's prediction, replaced where the strength is 0 or below t; see `Denoiser.forward`."""
        basis, strength = self.process.basis, self.strength.to(u.device)
        x0, _, _, variance = self.denoiser(u, level, **cond)
        pixels, free = basis.inverse(x0), (strength > 0) & (strength >= level.time)
        x0 = basis.forward(torch.where(free, pixels, self.replacement.to(pixels)))
        if variance is not None:
            variance = torch.where(free, variance, 0.0)  # a known pixel has a point distribution
        return Prediction(x0, eps_of(x0, u, level), level, variance)


@dataclass(frozen=True)
class Resampling(Solver):
    """Blocks of steps of a solver, each repeated after noising its result back (Lugmayr et al. 2022, algorithm 1).

    For `inpaint`: each pass harmonizes the unknown region with the known one. From s back to t the state is noised by
    the process's own transition, u_t = r u_s + sqrt(sigma_t^2 - r^2 sigma_s^2) z with r = alpha_t / alpha_s. A run
    costs `repeats` times the evaluations.

    Args:
        solver: The solver whose steps are repeated.
        repeats: The paper's r: how often each step is taken, at least 1.
        jump: The paper's j: number of steps in a block, at least 1.
    """

    solver: OneStep = field(default_factory=Ancestral)
    repeats: int = 10
    jump: int = 10

    def __post_init__(self) -> None:
        if not hasattr(self.solver, "step"):
            raise ParameterError("solver", f"{self.solver!r} has no single step to repeat; use Ancestral or DDIM")
        require_whole("repeats", self.repeats)
        require_whole("jump", self.jump)

    def check(self, process: Process) -> None:
        """See `Solver.check`."""
        self.solver.check(process)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states of the last pass over each level; see `Solver.states`."""
        for first in range(0, len(levels) - 1, self.jump):
            block = levels[first : first + self.jump + 1]
            for remaining in reversed(range(self.repeats)):
                for t, s in pairwise(block):
                    u = self.solver.step(denoiser, u, t, s, noise, **cond)
                    if remaining == 0:
                        yield u
                if remaining > 0:
                    u = noised(u, block[-1], block[0], noise(u))
        yield self.solver.finish(denoiser, u, levels[-1], noise, **cond)


def check_strength(strength: Tensor, image: Tensor) -> Tensor:
    """The strength as float64; an error if it is out of range or does not broadcast against the image."""
    strength = strength.to(torch.float64)
    if not bool(((strength >= 0) & (strength <= 1)).all()):
        low, high = float(strength.min()), float(strength.max())
        raise ParameterError("strength", f"must be from 0 (keep) to 1 (free), got values in [{low:g}, {high:g}]")
    try:
        fits = torch.broadcast_shapes(strength.shape, image.shape) == image.shape
    except RuntimeError:
        fits = False
    require(fits, "strength", tuple(strength.shape), f"one for each pixel of the image, {tuple(image.shape)}")
    return strength
