"""Samplers of processes whose mean is not linear in the data: two that are exact in the limit, and one that is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.errors import ParameterError, require
from unidiff.grid import ArcLength, Grid
from unidiff.noise import Seeded
from unidiff.precision import precise
from unidiff.solver.base import State
from unidiff.velocity import PerSamplePosterior, VelocityField

__all__ = ["PerSampleSolver", "PlugIn", "PosteriorDDIM", "VelocityFlow"]


@dataclass(frozen=True)
class PerSampleSolver(ABC):
    """A rule that carries a state of a `PerSampleHeat` from a time t to a time s < t. Deterministic."""

    @abstractmethod
    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        """The state at s, (B, *modes), from the state u at t."""

    def check(self, model: VelocityField) -> None:
        """Refuse a model that does not know what this method asks.

        Raises:
            ParameterError: With the remedy.
        """
        return

    def trajectory(self, model: VelocityField, u: Tensor, times: Tensor | Sequence[float]) -> Iterator[State]:
        """Every state from the start u at times[0] to the clean end at times[-1] = 0, the start included.

        Args:
            model: The velocity field.
            u: State at times[0], (B, *modes).
            times: Strictly decreasing, ending at 0, as a grid gives them for `process.linear`: (N + 1,).
        """
        self.check(model)
        *noisy, _ = torch.as_tensor(times).tolist()
        u = u.to(precise(u.device))
        yield State(noisy[0], u)
        for t, s in pairwise(noisy):
            u = self.step(model, u, t, s)
            yield State(s, u)
        yield State(0.0, model.denoise(u, noisy[-1]))

    @torch.no_grad()
    def sample(
        self,
        model: VelocityField,
        grid: Grid | None = None,
        shape: Sequence[int] | None = None,
        seeds: int | Sequence[int] = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw samples: noise at t = 1, carried to the data.

        Args:
            model: The velocity field.
            grid: The times; ArcLength(50) of the linear process if not given.
            shape: Shape of one sample; the model's own if not given.
            seeds: One seed per sample; a number n stands for 0, ..., n - 1.
            dtype: Floating type of the noise and of the samples.
            device: Where the model is.

        Returns:
            Samples in pixels, (B, *shape).
        """
        linear = model.process.linear
        shape = model.shape if shape is None else shape
        if shape is None:
            raise ParameterError("shape", "this model has no sample shape of its own; pass one, such as (1, 28, 28).")
        seeds = range(seeds) if isinstance(seeds, int) else seeds
        require(len(seeds) > 0, "seeds", seeds, "a number of at least 1, or one seed per sample")
        u = linear.start(Seeded(seeds), torch.empty(len(seeds), *shape, dtype=dtype, device=device))
        *_, last = self.trajectory(model, u, (grid or ArcLength(50)).times(linear))
        return linear.basis.inverse(last.u).to(dtype)


def _posterior(model: VelocityField, solver: PerSampleSolver) -> PerSamplePosterior:
    if not isinstance(model, PerSamplePosterior):
        name = type(solver).__name__
        problem = f"{name} needs more than the velocity, all that {type(model).__name__} predicts. Use VelocityFlow."
        raise ParameterError("solver", problem)
    return model


@dataclass(frozen=True)
class PosteriorDDIM(PerSampleSolver):
    """u_s = E[m_s | u_t] + (sigma_s / sigma_t) (u_t - E[m_t | u_t]): DDIM for a mean that is not linear in the data.

    DDIM's construction (Song, Meng & Ermon 2021, eq. 7, without noise) needs no more than a mean that is a function of
    the data; what is expected of the data is put in at the end, and here it is put in right. Of order 1 in the steps.
    It needs the expectation of m at another time than the state's: exact for a `PerSamplePosterior`, and out of the
    reach of a network that predicts the data.
    """

    def check(self, model: VelocityField) -> None:
        """Refuse a model that is no posterior; see `PerSampleSolver.check`."""
        _posterior(model, self)

    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        """The state at s; see `PerSampleSolver.step`."""
        posterior = _posterior(model, self)
        ratio = posterior.process.sigma(s, u) / posterior.process.sigma(t, u)
        return posterior.mean(u, t, s) + ratio * (u - posterior.mean(u, t, t))


@dataclass(frozen=True)
class PlugIn(PerSampleSolver):
    """u_s = m(s, x) + (sigma_s / sigma_t) (u_t - m(t, x)) with x = E[u_0 | u_t]: **biased**, at any number of steps.

    m(s, E[u_0 | u_t]) is not E[m(s, u_0) | u_t], because every image is rescaled by its own factor: the mean of several
    images is smoother than each of them, and is rescaled less. Some images are drawn far too often. It is what cold
    diffusion (Bansal et al. 2022, algorithm 2) does with a network that predicts data, and is here to be measured.
    """

    def check(self, model: VelocityField) -> None:
        """Refuse a model that is no posterior; see `PerSampleSolver.check`."""
        _posterior(model, self)

    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        """The state at s; see `PerSampleSolver.step`."""
        posterior, process = _posterior(model, self), model.process
        x = posterior.x0(u, t)
        ratio = process.sigma(s, u) / process.sigma(t, u)
        return process.mean(x, s) + ratio * (u - process.mean(x, t))


@dataclass(frozen=True)
class VelocityFlow(PerSampleSolver):
    """du/dt = E[m' + sigma' eps | u_t] by the explicit trapezoidal rule (Heun), of order 2: two evaluations a step.

    It has the process's distribution at every time, in the limit of small steps: for a network as for the posterior.
    """

    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        """The state at s; see `PerSampleSolver.step`."""
        start = model(u, t)
        return u + (s - t) / 2 * (start + model(u + (s - t) * start, s))
