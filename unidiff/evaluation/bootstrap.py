"""The bootstrap: how far a number would move with other samples of the same model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unidiff.evaluation.distances import Estimate
from unidiff.noise import generator_of

__all__ = ["DRAWS", "bootstrapped", "mean_of", "parts", "resamples"]

DRAWS = 100  # so a standard error is itself known to 1 / sqrt(2 * 100) = 7 %
_SEED = 2**41  # beyond the seeds of samples in use


def resamples(count: int, draws: int = DRAWS) -> Tensor:
    """How often each of `count` samples is in each of `draws` resamples with replacement, (draws, count) float64."""
    rows = torch.randint(count, (draws, count), generator=generator_of(_SEED))
    return torch.zeros(draws, count, dtype=torch.float64).scatter_add_(1, rows, torch.ones(rows.shape).double())


def bootstrapped(value: float, replicate: Callable[[Tensor], Tensor], count: int) -> Estimate:
    """A value with the standard deviation of its replicates (Efron 1979, section 2).

    Args:
        value: The value of all samples.
        replicate: From `resamples`, (draws, count), to the value of each, (draws,).
        count: Number of samples.
    """
    return Estimate(value, float(replicate(resamples(count)).std()))


def parts(x: Tensor, count: int) -> list[Tensor]:
    """Rows (N, F) in `count` disjoint parts of equal size, up to one row, in a random order that depends on N alone.

    Rows often come in an order: data by class, and samples by classes in turn, so that every tenth is of one class.
    """
    x = x[torch.randperm(len(x), generator=generator_of(_SEED))]
    return [x[part::count] for part in range(count)]


def mean_of(values: Tensor) -> Estimate:
    """The mean of one number for each sample, (N,); its bootstrap error is known without drawing: std / sqrt(N)."""
    values = values.double()
    return Estimate(float(values.mean()), float(values.std(correction=0)) / len(values) ** 0.5)
