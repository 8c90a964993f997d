"""DPM-Solver (Lu et al. 2022a): exponential integrators for the noise prediction, with fixed and adaptive steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.noise import Noise
from unidiff.prediction import Prediction
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level, Scale, axpby
from unidiff.solver.base import Solver, require_positive_alpha
from unidiff.solver.dpm import DPMSolverSinglestep
from unidiff.solver.exponential import ddim_step, log_ratio
from unidiff.solver.ode import require_resolved

__all__ = ["DPMSolverAdaptive", "DPMSolverNoise"]

_MOST_EVALUATIONS = 100_000


@dataclass(frozen=True)
class DPMSolverNoise(DPMSolverSinglestep):
    """DPM-Solver-1, -2 and -3: as many evaluations a step as its order, at intermediate times, and no memory.

    Lu et al. 2022a, section 3.2 and algorithms 1 (r1 = 1/2) and 2 (r1 = 1/3, r2 = 2/3). DPMSolverSinglestep is the same
    for the data prediction.

    Args:
        order: Evaluations a step, 1 to 3. With 1 it is DDIM.
    """

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        start = denoiser(u, t, **cond)
        if self.order == 1 or -math.inf in (t.log_snr, s.log_snr):  # from alpha = 0 lambda has no midpoint
            return ddim_step(s, start)
        if self.order == 2:
            return _second(denoiser, u, t, s, start, 0.5, **cond)[0]
        return _third(denoiser, u, t, s, start, **cond)[0]


@dataclass(frozen=True)
class DPMSolverAdaptive(Solver):
    """DPM-Solver-12 and -23: steps whose error is estimated by the method of one order less.

    Lu et al. 2022a, appendix C. Each interval of the grid is walked in steps of its own, the first as long as the last
    one before, so that a grid of few steps, such as LogSNR(2), leaves the choice to the method. The tolerance holds for
    the worst sample of a batch, whose samples share their steps; another batch changes a sample within the tolerance.
    The paper's error is divided by max(atol, rtol max(abs(x), abs(x_before))) in each element, in root mean square. A
    run raises a ParameterError if it takes 100,000 evaluations.

    Args:
        order: Of the steps, 2 (DPM-Solver-12, 2 evaluations a step) or 3 (DPM-Solver-23, 3 evaluations).
        rtol: Relative tolerance, above 0.
        atol: Absolute tolerance, above 0; the paper's, 0.0078, is one level in 256 of pixels in [-1, 1].
        first_step: Length of the first step in log(alpha / sigma), above 0.
        safety: Factor of the next step's length, in (0, 1).
    """

    order: int = 3  # type: ignore[misc]
    rtol: float = 0.05
    atol: float = 0.0078
    first_step: float = 0.05
    safety: float = 0.9

    def __post_init__(self) -> None:
        require_whole("order", self.order, 2, 3)
        for name in ("rtol", "atol", "safety"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "a number in (0, 1)")
        require(0 < self.first_step < math.inf, "first_step", self.first_step, "a number > 0")

    @property
    def convergence(self) -> int | None:
        """None: its steps follow from the tolerance."""
        return None

    def check(self, process: Process) -> None:
        remedy = "Use ProbabilityFlow, or UniPCNoise."
        require_one_snr(process, "solver", "DPMSolverAdaptive needs one log SNR for all modes", remedy)
        require_positive_alpha(process, "DPMSolverAdaptive steps in log SNR", remedy)

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        require_resolved(self.rtol, self.atol, u.dtype, "rtol")
        length, before, evaluations = self.first_step, u, 0
        for t, end in pairwise(levels):
            start = denoiser(u, t, **cond)
            while t is not end:
                left = _length(t, end)
                step = math.copysign(min(length, abs(left)), left)
                s = end if step == left else _between(denoiser.process, t, step)
                if self.order == 2:
                    higher, lower = _second(denoiser, u, t, s, start, 0.5, **cond)[0], ddim_step(s, start)
                else:
                    higher, lower = _third(denoiser, u, t, s, start, **cond)
                error = self._error(higher, lower, before)
                if error <= 1:
                    before, u, t = lower, higher, s
                    if t is not end:
                        start = denoiser(u, t, **cond)
                if step != left or error > 1:  # a step cut short by the grid says nothing of a longer one
                    length = self.safety * abs(step) * max(error, 1e-6) ** (-1 / self.order)
                evaluations += self.order
                if evaluations > _MOST_EVALUATIONS or not error < math.inf:
                    problem = f"DPMSolverAdaptive took {evaluations} evaluations and has not ended (error {error:.3g})"
                    raise ParameterError("denoiser", f"{problem}. Use larger rtol and atol, or check it for NaN.")
            yield u
        yield denoiser(u, levels[-1], **cond).x0

    def _error(self, higher: Tensor, lower: Tensor, before: Tensor) -> float:
        """The error of a step in units of the tolerance: the largest of any sample."""
        tolerance = (self.rtol * torch.maximum(lower.abs(), before.abs())).clamp(min=self.atol)
        ratio = ((higher - lower) / tolerance).detach().square().flatten(1)  # steps are constants of a gradient
        return float(ratio.mean(1).max().sqrt())


def _length(t: Level, s: Level) -> float:
    """Length h of the step in lambda = log(alpha / sigma)."""
    return float(log_ratio(t) - log_ratio(s))


def _between(process: Process, t: Level, length: float) -> Level:
    """The level where log(alpha / sigma) is that of t and `length` more."""
    return process.level(process.time_at(torch.tensor(t.log_snr + 2 * length, dtype=torch.float64)))


def _towards(u: Tensor, t: Level, s: Level, start: Prediction, more: Scale = 0.0) -> Tensor:
    """The state at s for constant noise: DPM-Solver-1, eq. (3.7); `more` of the noise is added."""
    return start.mix(0.0, more - s.sigma * math.expm1(_length(t, s)), s.alpha / t.alpha, u)


def _risen(u: Tensor, t: Level, s: Level, start: Prediction, c: Scale, eps: Tensor) -> Tensor:
    """The same less c times the rise of the noise from the start to eps."""
    return axpby(1.0, _towards(u, t, s, start, c), -c, eps)


def _second(
    denoiser: Denoiser, u: Tensor, t: Level, s: Level, start: Prediction, r: float, **cond: Tensor
) -> tuple[Tensor, Tensor]:
    """DPM-Solver-2 with its intermediate time at r of the step (algorithm 4): the state at s, and eps in between."""
    h = _length(t, s)
    middle = _between(denoiser.process, t, r * h)
    eps = denoiser(_towards(u, t, middle, start), middle, **cond).eps
    return _risen(u, t, s, start, s.sigma * math.expm1(h) / (2 * r), eps), eps


def _third(
    denoiser: Denoiser, u: Tensor, t: Level, s: Level, start: Prediction, **cond: Tensor
) -> tuple[Tensor, Tensor]:
    """DPM-Solver-3 (algorithm 2), and DPM-Solver-2 with r = 1/3 from the same evaluations (algorithm 5)."""
    h = _length(t, s)
    lower, eps = _second(denoiser, u, t, s, start, 1 / 3, **cond)
    late = _between(denoiser.process, t, 2 / 3 * h)
    phi = math.expm1(2 / 3 * h) / (2 / 3 * h) - 1
    state = _risen(u, t, late, start, 2 * late.sigma * phi, eps)
    return _risen(u, t, s, start, 1.5 * s.sigma * (math.expm1(h) / h - 1), denoiser(state, late, **cond).eps), lower
