"""The probability flow du/dt = alpha' x0 + sigma' eps in the process's own time (Song et al. 2021, eq. 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.noise import Noise
from unidiff.process.level import Level, axpby
from unidiff.solver.base import OneStep, Solver

__all__ = ["Euler", "Heun", "ProbabilityFlow", "require_resolved"]

# The explicit methods of torchdiffeq; the adaptive ones come first.
Method = Literal["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", "euler", "midpoint", "heun3", "rk4"]
_MOST_EVALUATIONS = 100_000  # of an adaptive method: a stiff model, or a tolerance that it never meets


@dataclass(frozen=True)
class Euler(OneStep):
    """One explicit step of the flow, in t. On FlowMatching the usual sampler of flow models.

    DDIM is the same method after a change of variables, (u / alpha, sigma / alpha), that leaves less to approximate.
    """

    order: ClassVar[int | None] = 1

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        h = s.time - t.time
        return denoiser(u, t, **cond).mix(h * t.alpha_rate, h * t.sigma_rate, 1.0, u)


@dataclass(frozen=True)
class Heun(OneStep):
    """The explicit trapezoidal rule for the flow, in t: two evaluations a step (Karras et al. 2022, algorithm 1).

    With t proportional to sigma and alpha = 1, as in EDM(rho=1), it is the sampler that Karras et al. recommend; on any
    process that one is EDMStochastic(churn=0).
    """

    order: ClassVar[int | None] = 2

    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        h = s.time - t.time
        start = denoiser(u, t, **cond).velocity
        u = axpby(1.0, u, h, start)  # Euler's step, which the second slope corrects
        end = denoiser(u, s, **cond).mix(h / 2 * s.alpha_rate, h / 2 * s.sigma_rate, 1.0, u)
        return axpby(1.0, end, -h / 2, start)


@dataclass(frozen=True)
class ProbabilityFlow(Solver):
    """The flow by a method of torchdiffeq (Song et al. 2021, section 4.3 and appendix D.4).

    An adaptive method chooses its own times and interpolates at those of the grid: the path is dense output of order 4.
    dopri8, whose own order is higher, steps from one time of the grid to the next instead. A tolerance holds for the
    worst sample of a batch, whose samples share their steps; another batch changes a sample within that tolerance. A
    method of fixed steps uses the grid. A run raises a ParameterError if the step of an adaptive method underflows, for
    example because the model's output is NaN, if it takes 100,000 evaluations, or if its tolerance is below the
    rounding of the states, 1.2e-7 in float32.

    Args:
        method: dopri5 is adaptive of order 5; also adaptive are dopri8, bosh3, fehlberg2 and adaptive_heun. euler,
            midpoint, heun3 and rk4 have fixed steps.
        rtol: Relative tolerance of an adaptive step, above 0.
        atol: Absolute tolerance of an adaptive step, above 0.
    """

    method: Method = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        require(self.method in get_args(Method), "method", self.method, f"one of {', '.join(get_args(Method))}")
        for name in ("rtol", "atol"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "a number in (0, 1)")

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        times = [float(level.time) for level in levels]
        path = [*self._integrate(denoiser, u, times, **cond)] if len(times) > 1 else [u]
        yield from path[1:]
        yield denoiser(path[-1], levels[-1], **cond).x0

    def _integrate(self, denoiser: Denoiser, u: Tensor, times: list[float], **cond: Tensor) -> Tensor:
        from torchdiffeq import odeint

        low, high = min(times), max(times)
        adaptive, evaluations = self.method in get_args(Method)[:5], 0
        if adaptive:
            require_resolved(self.rtol, self.atol, u.dtype, "rtol")

        def velocity(t: Tensor, u: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            if adaptive and evaluations > _MOST_EVALUATIONS:
                problem = f"its probability flow took {_MOST_EVALUATIONS} evaluations and has not ended"
                remedy = "Use larger rtol and atol, float64 states, or a method of fixed steps."
                raise ParameterError("denoiser", f"{problem} (rtol {self.rtol:g}, atol {self.atol:g}). {remedy}")
            # An adaptive method looks beyond the last time and interpolates back. NaN becomes low.
            return denoiser(u, denoiser.process.level(min(max(low, float(t)), high), u), **cond).velocity

        options: dict[str, Any] = {"norm": _of_worst_sample} if adaptive else {}
        t = torch.tensor(times, dtype=torch.float64)
        if self.method == "dopri8":
            options["step_t"] = t[1:]  # steps end exactly there
        try:
            return odeint(velocity, u, t, rtol=self.rtol, atol=self.atol, method=self.method, options=options)
        except AssertionError as error:  # steps of length 0, or a state that is not finite
            remedy = "Larger rtol and atol, or float64 states, may help; check the model's output for NaN."
            raise ParameterError("denoiser", f"its probability flow cannot be solved ({error}). {remedy}") from error


def require_resolved(rtol: float, atol: float, dtype: torch.dtype, parameter: str) -> None:
    """Raise a ParameterError for a tolerance below the rounding of the states.

    States are of order 1 where a process begins or ends. An element u = 1 and its neighbour in the number format are
    eps apart, so two states that differ by less than eps are one, and an error of less than rtol |u| + atol =
    rtol + atol < eps can neither be reached nor seen: the estimate of it is rounding, and steps shrink without end.
    """
    if rtol + atol < (eps := torch.finfo(dtype).eps):
        name = str(dtype).removeprefix("torch.")
        problem = f"rtol + atol must be >= {eps:.2g}, the rounding of {name} states, got {rtol:g} + {atol:g}"
        raise ParameterError(parameter, f"{problem}. Use larger tolerances, or float64.")


def _of_worst_sample(error: Tensor) -> Tensor:
    """The largest root mean square over one sample of the batch, of an error in units of the tolerance."""
    error = error.detach()  # steps are constants of a gradient: one through their sizes but not their times is wrong
    return error.abs().square().flatten(1).mean(1).max().sqrt() if error.ndim > 1 else error.abs().max()
