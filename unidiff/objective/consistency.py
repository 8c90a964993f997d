"""Consistency models: a network that maps every state of a path of the probability flow to the path's clean end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import require_whole
from unidiff.objective.denoising import Denoising
from unidiff.objective.distillation import Distillation
from unidiff.objective.trailing import Interval, require_steps, two_steps
from unidiff.process.base import Process
from unidiff.process.level import Level, eps_of

__all__ = ["ConsistencyDistillation", "ConsistencyTraining"]


@dataclass(frozen=True)
class _Doubled(Denoising):
    """On a grid of N = `steps` intervals that is doubled `doublings` times as training goes on."""

    steps: int = 1
    doublings: int = 0

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)
        require_whole("doublings", self.doublings, 0, 30)

    def check(self, process: Process) -> None:
        """Reject a process whose t_min is above the first time of the finest grid; see `Objective.check`."""
        super().check(process)
        require_steps(process, self.steps * 2**self.doublings, "steps", halves=True)

    @property
    def stages(self) -> int:
        """See `Objective.stages`."""
        return self.doublings + 1

    def next_stage(self, average: Denoiser) -> Self:
        """Twice the steps; see `Objective.next_stage`."""
        return replace(self, steps=2 * self.steps, doublings=self.doublings - 1)


@torch.no_grad()
def _end_of_path(denoiser: NeuralDenoiser, u: Tensor, clean: Tensor, interval: Interval, **cond: Tensor) -> Tensor:
    """What the model takes for the end of the path at s, (B, *modes), without a gradient; where s is 0 the end itself.

    The gradient is stopped at the network itself, not at an average of its weights (Song & Dhariwal 2024, section 3.2).
    """
    return torch.where(interval.last, clean, denoiser(u, interval.s, **cond).x0)


@dataclass(frozen=True)
class ConsistencyDistillation(_Doubled, Distillation):
    """The network's x0 at t is its x0 at s, where the teacher's flow takes the state (Song et al. 2023, definition 1).

    The consistency function f(u, t) is the model's x0. It meets the boundary identity f(u, 0) = u with every
    parameterization that has an output of noise at t = 0 (V, Velocity, Preconditioned), and where s is 0 the target is
    the end of the teacher's step itself. The times are those of `Trailing`; the step of the teacher is two of DDIM over
    half of the interval. The squared distance is that of the network's own output, as in Denoising. Samples are
    f(u, 1): one step of any solver, or `MultistepConsistency`.

    Args:
        weighting: The weight w(t), as in Denoising.
        steps: Intervals of the grid of times, N, at least 1; 2 N is at most 1 / t_min.
        doublings: How often N is doubled, as training goes on (`Objective.stages`).
    """

    def next_stage(self, average: Denoiser) -> Self:
        """Twice the steps, with the same teacher; see `Objective.next_stage`."""
        doubled = super().next_stage(average)
        return doubled if self._teacher is None else doubled.with_teacher(self._teacher)

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at the end of the interval of the grid that its time is in."""
        teacher = self._require_alike(denoiser)
        interval = Interval(denoiser.process, self.steps, level, u0)
        u = denoiser.process.perturb(u0, eps, interval.t)
        clean = two_steps(teacher, u, interval, **cond)
        u_s = denoiser.process.perturb(clean, eps_of(clean, u, interval.t), interval.s)
        x0 = _end_of_path(denoiser, u_s, clean, interval, **cond)
        output = denoiser.output(u, interval.t, **cond)
        return self._simple(denoiser, output, x0, eps_of(x0, u, interval.t), interval.t)


@dataclass(frozen=True)
class ConsistencyTraining(_Doubled):
    """As `ConsistencyDistillation` without a teacher: the states at t and s share data and noise.

    Song et al. 2023, algorithm 3. The difference of the two states is an unbiased estimate of the step of the flow, and
    the loss equals that of distillation with the exact model up to o(1 / N) (theorem 2), so N must grow: it is doubled
    `doublings` times (Song & Dhariwal 2024, section 3.4).

    Args:
        weighting: The weight w(t), as in Denoising.
        steps: Intervals of the grid of times, N, in the first part of the training, at least 1.
        doublings: How often N is doubled, as training goes on (`Objective.stages`); the last N is at most
            1 / (2 t_min).
    """

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at the end of the interval of the grid that its time is in."""
        interval = Interval(denoiser.process, self.steps, level, u0)
        u_s = denoiser.process.perturb(u0, eps, interval.s)
        x0 = _end_of_path(denoiser, u_s, u0, interval, **cond)
        u = denoiser.process.perturb(u0, eps, interval.t)
        output = denoiser.output(u, interval.t, **cond)
        return self._simple(denoiser, output, x0, eps_of(x0, u, interval.t), interval.t)
