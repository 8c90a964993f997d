"""Samplers of processes whose mean is not linear in the data: two that are exact in the limit, and one that is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError
from unidiff.grid import Grid
from unidiff.noise import Seeded
from unidiff.precision import precise
from unidiff.solver.base import State
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.gradients import gradients
from unidiff.solver.request import shape_and_seeds
from unidiff.solver.spec import grid_for
from unidiff.velocity import PerSamplePosterior, VelocityField

__all__ = ["PerSampleSolver", "PlugIn", "PosteriorDDIM", "VelocityFlow"]


@dataclass(frozen=True)
class PerSampleSolver(PlainArguments, ABC):
    """A deterministic rule that carries a state of a `PerSampleHeat` from a time t to a time s < t."""

    @abstractmethod
    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        """The state at s, (B, *modes), from the state u at t."""

    def check(self, model: VelocityField) -> None:
        """Raise a ParameterError for a model with which this method is not defined."""
        return

    def trajectory(self, model: VelocityField, u: Tensor, times: Tensor | Sequence[float]) -> Iterator[State]:
        """Every state from u, (B, *modes), at times[0] (included) to the clean state at times[-1] = 0.

        The times, (N + 1,), decrease strictly to 0, as those of a grid for `process.linear`.
        """
        self.check(model)
        *noisy, _ = torch.as_tensor(times).tolist()
        u = u.to(precise(u.device))
        yield State(noisy[0], u)
        for t, s in pairwise(noisy):
            u = self.step(model, u, t, s)
            yield State(s, u)
        yield State(0.0, model.denoise(u, noisy[-1]))

    def sample(
        self,
        model: VelocityField,
        grid: Grid | str | int | None = None,
        shape: Sequence[int] | None = None,
        seeds: int | Sequence[int] = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        grad: bool = False,
    ) -> Tensor:
        """Draw samples in pixels, (B, *shape); the arguments are those of `unidiff.sample`."""
        linear = model.process.linear
        shape, seeds = shape_and_seeds(model.shape, shape, seeds)
        u = linear.start(Seeded(seeds), torch.empty(len(seeds), *shape, dtype=dtype, device=device))
        with gradients(grad, model):
            *_, last = self.trajectory(model, u, grid_for(linear, grid).times(linear))
            x = linear.basis.inverse(last.u).to(dtype)
        warn_if_not_finite(x)
        return x


@dataclass(frozen=True)
class _OnPosterior(PerSampleSolver):
    """u_s = m_s + (sigma_s / sigma_t) (u_t - m_t), with estimates of the means from the posterior of the data."""

    def check(self, model: VelocityField) -> None:
        if not isinstance(model, PerSamplePosterior):
            reason = f"{type(self).__name__} needs a PerSamplePosterior, got a {type(model).__name__}"
            raise ParameterError("solver", f"{reason}. Use VelocityFlow.")

    @abstractmethod
    def means(self, posterior: PerSamplePosterior, u: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        """The estimates (m_t, m_s), each (B, *modes), from the state u at t."""

    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        self.check(model)
        m_t, m_s = self.means(cast(PerSamplePosterior, model), u, t, s)
        return m_s + model.process.sigma(s, u) / model.process.sigma(t, u) * (u - m_t)


@dataclass(frozen=True)
class PosteriorDDIM(_OnPosterior):
    """u_s = E[m_s | u_t] + (sigma_s / sigma_t) (u_t - E[m_t | u_t]): DDIM for a mean that is not linear in the data.

    DDIM's construction (Song, Meng & Ermon 2021, eq. 7, without noise) needs no more than a mean that is a function of
    the data; the conditional expectation is taken at the end, here of the right quantity. Of order 1 in the steps. It
    needs the expectation of m at another time than the state's: exact for a `PerSamplePosterior`, and out of the reach
    of a network that predicts the data.
    """

    def means(self, posterior: PerSamplePosterior, u: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        return posterior.mean(u, t, t), posterior.mean(u, t, s)


@dataclass(frozen=True)
class PlugIn(_OnPosterior):
    """u_s = m(s, x) + (sigma_s / sigma_t) (u_t - m(t, x)) with x = E[u_0 | u_t]: **biased**, at any number of steps.

    m(s, E[u_0 | u_t]) is not E[m(s, u_0) | u_t], because every image is rescaled by its own factor: the mean of several
    images is smoother than each of them, and is rescaled less. Some images are sampled far too often. It is what cold
    diffusion (Bansal et al. 2022, algorithm 2) does with a network that predicts data, implemented to measure the bias.
    """

    def means(self, posterior: PerSamplePosterior, u: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        x = posterior.x0(u, t)
        return posterior.process.mean(x, t), posterior.process.mean(x, s)


@dataclass(frozen=True)
class VelocityFlow(PerSampleSolver):
    """du/dt = E[m' + sigma' eps | u_t] by the explicit trapezoidal rule (Heun), of order 2: two evaluations a step.

    It has the process's distribution at every time, in the limit of small steps: for a network as for the posterior.
    """

    def step(self, model: VelocityField, u: Tensor, t: float, s: float) -> Tensor:
        start = model(u, t)
        return u + (s - t) / 2 * (start + model(u + (s - t) * start, s))
