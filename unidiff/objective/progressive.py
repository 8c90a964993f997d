"""Progressive distillation: a student takes in one step what its teacher takes in two, again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from unidiff.denoiser import Denoiser, NeuralDenoiser
from unidiff.errors import require, require_whole
from unidiff.objective.distillation import Distillation
from unidiff.objective.trailing import Interval, require_steps, two_steps
from unidiff.process.base import Process
from unidiff.process.level import Level, eps_of

__all__ = ["ProgressiveDistillation"]


@dataclass(frozen=True)
class ProgressiveDistillation(Distillation):
    """One step of DDIM by the student is two steps by the teacher (Salimans & Ho 2022, algorithm 2).

    At the times i / N of `Trailing` the target is the x0 with which a step of 1 / N ends where the teacher ends in two.
    Training is divided into `halvings` + 1 parts (`Objective.stages`). After each the averaged student is the next
    teacher, and the next student takes half as many steps: N = steps, steps / 2, ..., steps / 2^halvings. Draw samples
    with DDIM on `Trailing(N)` of the last N. The paper's loss is that of V with the weight max(SNR, 1) on the squared
    error of x0; `UniformWeighting` of V has SNR + 1, the paper's other choice.

    Args:
        weighting: The weight w(t), as in Denoising.
        steps: N of the first student, at least 1; 2 N is at most 1 / t_min.
        halvings: How often it is halved; 2^halvings divides `steps`.
    """

    steps: int = 1
    halvings: int = 0

    def __post_init__(self) -> None:
        require_whole("steps", self.steps)
        require_whole("halvings", self.halvings, 0, 30)
        allowed = f"a number that 2^halvings divides, {2**self.halvings}"
        require(self.steps % 2**self.halvings == 0, "steps", self.steps, allowed)

    def check(self, process: Process) -> None:
        """Reject a process whose t_min is above the teacher's last time, 1 / (2 N); see `Objective.check`."""
        super().check(process)
        require_steps(process, self.steps, "steps", halves=True)

    @property
    def stages(self) -> int:
        """See `Objective.stages`."""
        return self.halvings + 1

    def next_stage(self, average: Denoiser) -> ProgressiveDistillation:
        """Half the steps, taught by the student so far; see `Objective.next_stage`."""
        return replace(self, steps=self.steps // 2, halvings=self.halvings - 1).with_teacher(average)

    def losses(self, denoiser: NeuralDenoiser, u0: Tensor, eps: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), at the end of the interval of the grid that its time is in."""
        teacher = self._require_alike(denoiser)
        interval = Interval(denoiser.process, self.steps, level, u0)
        u = denoiser.process.perturb(u0, eps, interval.t)
        x0 = two_steps(teacher, u, interval, **cond)
        output = denoiser.output(u, interval.t, **cond)
        return self._simple(denoiser, output, x0, eps_of(x0, u, interval.t), interval.t)
