"""What every solver does: walk down a grid of times, and denoise once at the end."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from unidiff.condition import on_device
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["OneStep", "Solver", "State", "refuse_many_snrs", "refuse_pure_noise"]


class State(NamedTuple):
    """A point of a trajectory: the state u, (B, *modes), at time t."""

    t: float
    u: Tensor


@dataclass(frozen=True)
class Solver(ABC):
    """A rule that carries a state along a grid of times. It holds parameters only: no model, no grid, no state.

    Attributes:
        order: What the literature calls the method's order; None where it has none.
    """

    order: ClassVar[int | None] = None

    @property
    def convergence(self) -> int | None:
        """Order of convergence of the state at t_min in the number of steps, of its distribution if it is random."""
        return self.order

    def check(self, process: Process) -> None:
        """Refuse a process on which this method is meaningless.

        Raises:
            ParameterError: With the reason.
        """
        return

    @abstractmethod
    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """The states at levels[1], levels[2], ..., and then the clean state, each (B, *modes).

        Whoever does not want the clean state leaves it unasked for; it is computed last. A deterministic solver walks
        levels of growing noise as well.

        Args:
            denoiser: The model.
            u: State at levels[0], (B, *modes).
            levels: Where to go; every sigma is above 0.
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.
        """

    def trajectory(
        self, denoiser: Denoiser, u: Tensor, times: Tensor | Sequence[float], noise: Noise, **cond: Tensor
    ) -> Iterator[State]:
        """Every state from the start u at times[0] to the clean end at times[-1] = 0, the start included.

        Args:
            denoiser: The model.
            u: State at times[0], (B, *modes).
            times: Strictly decreasing, ending at 0: (N + 1,).
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.

        Raises:
            ParameterError: If the method is meaningless on the denoiser's process; before any step.
        """
        self.check(denoiser.process)
        times = torch.as_tensor(times, dtype=torch.float64)
        levels = denoiser.process.levels_at(times[:-1], u.device)
        if isinstance(levels[0].alpha, Tensor):  # coefficients over modes are float64, and so is what they meet
            u = u.to(levels[0].alpha.dtype)
        states = self.states(denoiser, u, levels, noise, **on_device(cond, u.device))
        return map(State, times.tolist(), chain([u], states))


def refuse_pure_noise(process: Process, reason: str, remedy: str) -> None:
    """Refuse a process that starts from pure noise, alpha = 0, for the reason given.

    Raises:
        ParameterError: If alpha is 0 at t = 1, in one mode or in all.
    """
    lost = torch.as_tensor(process.level(1.0).alpha, dtype=torch.float64) == 0
    if bool(lost.any()):
        where = f" in {int(lost.sum())} of {lost.numel()} modes" if lost.ndim else ""
        raise ParameterError("solver", f"{reason}; {process!r} has alpha = 0 at t = 1{where}. {remedy}")


def refuse_many_snrs(process: Process, reason: str, remedy: str) -> None:
    """Refuse a process whose modes differ in SNR, for the reason given.

    Raises:
        ParameterError: If its basis has a shape.
    """
    if process.basis.shape:
        raise ParameterError("solver", f"{reason}; {process!r} has {math.prod(process.basis.shape)}. {remedy}")


@dataclass(frozen=True)
class OneStep(Solver):
    """A solver that remembers nothing between steps: one rule from a time t to a time s."""

    @abstractmethod
    def step(self, denoiser: Denoiser, u: Tensor, t: Level, s: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The state at s, (B, *modes), from the state u at t.

        Args:
            denoiser: The model.
            u: State at t, (B, *modes).
            t: Where the state is.
            s: Where to go; its sigma is above 0.
            noise: Source of standard normal noise.
            **cond: Conditions, handed to the denoiser.
        """

    def finish(self, denoiser: Denoiser, u: Tensor, t: Level, noise: Noise, **cond: Tensor) -> Tensor:
        """The clean state, (B, *modes), from the state at the last noisy time t: one denoise."""
        return denoiser(u, t, **cond).x0

    def states(
        self, denoiser: Denoiser, u: Tensor, levels: Sequence[Level], noise: Noise, **cond: Tensor
    ) -> Iterator[Tensor]:
        """Step by step along the levels; see `Solver.states`."""
        for t, s in pairwise(levels):
            u = self.step(denoiser, u, t, s, noise, **cond)
            yield u
        yield self.finish(denoiser, u, levels[-1], noise, **cond)
