"""What a random solver does to Gaussian data, exactly and without drawing anything."""

from __future__ import annotations

import itertools
import math

import torch

import unidiff as ud

F64 = torch.float64


def follow(
    solver: ud.Solver, process: ud.Process, times: torch.Tensor, variance: float, draws: int
) -> list[torch.Tensor]:
    """Each state of a run on data N(0, variance), the start and the clean end included, as coefficients (1 + draws,).

    The denoiser is linear then, and a state a linear function of the start and of each draw of noise. Each row of the
    batch follows one of them, scaled to a standard deviation of 1; the start is the exact marginal at t = 1.
    """
    model = ud.GaussianMixture(process, [[0.0]], variance)
    first = process.level(1.0)
    u = torch.zeros(draws + 1, 1, dtype=F64)
    u[0] = math.sqrt(first.alpha**2 * variance + first.sigma**2)
    numbers = itertools.count(1)

    def noise(like: torch.Tensor) -> torch.Tensor:
        z = torch.zeros_like(like)
        z[next(numbers)] = 1
        return z

    states = [state.u.flatten() for state in solver.trajectory(model, u, times, noise)]
    assert next(numbers) == draws + 1
    return states
