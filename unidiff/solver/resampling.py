"""Steps taken again and again: what RePaint adds to a solver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level, axpby, fresh_noise_fraction
from unidiff.solver.ancestral import Ancestral
from unidiff.solver.base import OneStep, Solver

__all__ = ["Resampling"]


@dataclass(frozen=True)
class Resampling(Solver):
    """Some steps of a solver, the noise they took away put back, and again (Lugmayr et al. 2022, algorithm 1).

    For `inpaint`: each pass carries what is known farther into the rest. From s back to t the state is noised by the
    process's own transition, u_t = r u_s + sqrt(sigma_t^2 - r^2 sigma_s^2) z with r = alpha_t / alpha_s. A run costs
    `repeats` times the evaluations.

    Args:
        solver: Whose steps are repeated.
        repeats: The paper's r: how often each step is taken, at least 1; the paper's value is 10.
        jump: The paper's j: how many steps are taken before they are repeated, at least 1; the paper's value is 10.
    """

    solver: OneStep = field(default_factory=Ancestral)
    repeats: int = 10
    jump: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.solver, OneStep):
            raise ParameterError("solver", f"{self.solver!r} has no single step to repeat. Use Ancestral or DDIM.")
        require_whole("repeats", self.repeats)
        require_whole("jump", self.jump)

    def check(self, process: Process) -> None:
        """Refuse what the solver refuses."""
        self.solver.check(process)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states of the last pass over each level; see `Solver.states`."""
        for first in range(0, len(levels) - 1, self.jump):
            block = levels[first : first + self.jump + 1]
            for left in reversed(range(self.repeats)):
                for t, s in pairwise(block):
                    u = self.solver.step(denoiser, u, t, s, noise, **cond)
                    if left == 0:
                        yield u
                if left > 0:
                    u = _noised(u, block[-1], block[0], noise)
        yield self.solver.finish(denoiser, u, levels[-1], noise, **cond)


def _noised(u: Tensor, s: Level, t: Level, noise: Noise) -> Tensor:
    """The state at t > s from that at s, r = sigma_t / sigma_s sqrt(SNR_t / SNR_s): finite where alpha is 0."""
    renewed = fresh_noise_fraction(t, s)
    return axpby(t.sigma / s.sigma * (1 - renewed) ** 0.5, u, t.sigma * renewed**0.5, noise(u))
