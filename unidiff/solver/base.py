"""The interface of solvers: steps along a grid of times, and one denoise at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.condition.check import on_device
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["OneStep", "Solver", "State", "require_positive_alpha"]


class State(NamedTuple):
    """A point of a trajectory: the state u, (B, *modes), at time t."""

    t: float
    u: Tensor


@dataclass(frozen=True)
class Solver(PlainArguments, ABC):
    """A numerical method along a grid of times. It holds parameters only: no model, no grid, no state.

    Attributes:
        order: The method's order in the literature; None where it has none.
    """

    order: ClassVar[int | None] = None

    @property
    def convergence(self) -> int | None:
        """Order of convergence of the state at t_min in the number of steps, of its distribution if it is random."""
        return self.order

    def check(self, process: Process) -> None:
        """Raise a ParameterError for a process on which this method is not defined."""
        return

    @abstractmethod
    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states at levels[1], levels[2], ..., and then the clean state, each (B, *modes).

        The clean state is computed only when the iterator is advanced to it. A deterministic solver also accepts levels
        of increasing noise.

        Args:
            denoiser: The model.
            u: State at levels[0], (B, *modes).
            levels: The noise levels of the grid; every sigma is above 0.
            noise: Source of standard normal noise.
            **cond: Conditions, passed to the denoiser.
        """

    def trajectory(
        self, denoiser: Denoiser, u: Tensor, times: Tensor | Sequence[float], noise: Noise, **cond: Tensor
    ) -> Iterator[State]:
        """Every state from u at times[0] (included) to the clean state at times[-1] = 0.

        The times, (N + 1,), decrease strictly to 0. The other arguments are those of `states`.

        Raises:
            ParameterError: Before any step, if the method is not defined on the denoiser's process.
        """
        self.check(denoiser.process)
        times = torch.as_tensor(times, dtype=torch.float64)
        levels = denoiser.process.levels_at(times[:-1], u.device)
        if isinstance(levels[0].alpha, Tensor):  # coefficients over modes are float64, and so is what they meet
            u = u.to(levels[0].alpha.dtype)
        states = self.states(denoiser, u, levels, noise, **on_device(cond, u.device))
        return map(State, times.tolist(), chain([u], states))


def require_positive_alpha(process: Process, reason: str, remedy: str) -> None:
    """Raise a ParameterError, with this reason, if alpha = 0 at t = 1 in any mode."""
    zero = torch.as_tensor(process.level(1.0).alpha, dtype=torch.float64) == 0
    if bool(zero.any()):
        where = f" in {int(zero.sum())} of {zero.numel()} modes" if zero.ndim else ""
        raise ParameterError("solver", f"{reason}; {process!r} has alpha = 0 at t = 1{where}. {remedy}")


@dataclass(frozen=True)
class OneStep(Solver):
    """A one-step method: the state at s depends on the state at t alone."""

    @abstractmethod
    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The state at the level s, (B, *modes), from the state u at the level t; the sigma of s is above 0."""

    def finish(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The clean state, (B, *modes), from the state at the last noisy time t: one denoise."""
        return denoiser(u, t, **cond).x0

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        for t, s in pairwise(levels):
            u = self.step(denoiser, u, t, s, noise, **cond)
            yield u
        yield self.finish(denoiser, u, levels[-1], noise, **cond)
