"""Distances between two distributions, estimated from samples of both, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require
from unidiff.noise import generator_of

__all__ = ["Estimate", "Target", "energy_distance", "sliced_wasserstein"]

_ROWS = 1024  # rows of a distance matrix held at a time


class Estimate(NamedTuple):
    """An estimated number.

    Attributes:
        value: The estimate.
        error: Its standard error.
    """

    value: float
    error: float


@plain_arguments
def energy_distance(x: Tensor, y: Tensor) -> Estimate:
    """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| between the distributions of two sets of samples.

    Szekely & Rizzo 2013, eq. 2.5: at least 0, and 0 only for equal distributions. Pairs of a sample with itself are
    left out, so the estimate is unbiased and may be negative. Its standard error is the jackknife's over the samples of
    both sets; for equal distributions, where the estimate is not normal, it is too large (Efron & Stein 1981).

    Args:
        x: Samples, (N, *shape), N at least 3.
        y: Samples, (M, *shape), M at least 3.
    """
    return Target(y).energy(x)


@plain_arguments
def sliced_wasserstein(x: Tensor, y: Tensor, *, directions: int = 64, groups: int = 10, seed: int = 0) -> Estimate:
    """Sliced Wasserstein distance of order 2 between two sets of samples.

    The root of the mean, over directions w, of the squared Wasserstein distance between <w, x> and <w, y>, which in one
    dimension is the integral of the squared difference of the quantile functions (Bonneel et al. 2015, section 2). The
    directions are orthonormal frames from a fixed seed: between two sets that differ by a shift d the distance is |d| /
    sqrt(D) exactly. It is the distance of the samples, not of the distributions: for two sets from one distribution it
    is positive and falls with their sizes. Standard error: jackknife over groups of samples.

    Args:
        x: Samples, (N, *shape).
        y: Samples, (M, *shape).
        directions: Number of directions, at least 1; rounded up to whole frames of D.
        groups: Number of groups that the jackknife leaves out in turn, at least 2 and at most N and M.
        seed: Of the directions.
    """
    return Target(y, directions, groups, seed).sliced(x)


class Target:
    """A reference set y, (M, *shape), with the sums and projections of y computed once; see `sliced_wasserstein`."""

    def __init__(self, y: Tensor, directions: int = 64, groups: int = 10, seed: int = 0) -> None:
        self._y = _flat(y, "y")
        self._groups = groups
        self._directions = _frames(self._y.shape[1], directions, seed)

    @cached_property
    def _within(self) -> Tensor:
        return _cross_sums(self._y, self._y)[0]

    @cached_property
    def _sorted(self) -> list[Tensor]:
        return list(_sorted(self._y @ self._directions.T, self._groups))

    def energy(self, x: Tensor) -> Estimate:
        """Energy distance of x, (N, *shape), from the target; see `energy_distance`."""
        x = _flat(x, "x")
        n, m = len(x), len(self._y)
        rows, columns = _cross_sums(x, self._y)
        own, between, within = _cross_sums(x, x)[0], rows.sum(), self._within.sum()

        def distance(between: Tensor, own: Tensor, within: Tensor, n: int, m: int) -> Tensor:
            return 2 * between / (n * m) - own / (n * (n - 1)) - within / (m * (m - 1))

        # A sum over all pairs loses a row and a column with each sample that is left out.
        without_x = distance(between - rows, own.sum() - 2 * own, within, n - 1, m)
        without_y = distance(between - columns, own.sum(), within - 2 * self._within, n, m - 1)
        error = math.sqrt(_jackknife(without_x) + _jackknife(without_y))
        return Estimate(float(distance(between, own.sum(), within, n, m)), error)

    def sliced(self, x: Tensor) -> Estimate:
        """Sliced Wasserstein distance of x, (N, *shape), from the target; see `sliced_wasserstein`."""
        projected = _sorted(_flat(x, "x") @ self._directions.T, self._groups)
        value, *left_out = (_wasserstein2(a, b).mean().sqrt() for a, b in zip(projected, self._sorted))
        return Estimate(float(value), math.sqrt(_jackknife(torch.stack(left_out))))


def _flat(x: Tensor, name: str) -> Tensor:
    require(x.ndim >= 2 and len(x) >= 3, name, tuple(x.shape), "at least 3 samples, (N, *shape)")
    return x.detach().to("cpu", torch.float64).flatten(1)


def _jackknife(left_out: Tensor) -> float:
    """Variance of an estimate from its values without each of the n parts, (n,): Efron & Stein 1981, eq. 1.2."""
    n = len(left_out)
    return float((n - 1) / n * (left_out - left_out.mean()).square().sum())


def _cross_sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the distances |x_i - y_j| over j and over i: (N,) and (M,)."""
    rows, columns = [], y.new_zeros(len(y))
    for part in x.split(_ROWS):
        distances = torch.cdist(part, y)
        rows.append(distances.sum(1))
        columns += distances.sum(0)
    return torch.cat(rows), columns


def _frames(size: int, count: int, seed: int) -> Tensor:
    """Unit vectors, at least `count`, in random orthonormal frames: (directions, D) float64."""
    generator = generator_of(seed)
    gaussians = [torch.randn(size, size, generator=generator, dtype=torch.float64) for _ in range(-(-count // size))]
    return torch.cat([torch.linalg.qr(gaussian)[0].T for gaussian in gaussians])


def _sorted(projections: Tensor, groups: int) -> Iterator[Tensor]:
    """Projections (N, K), sorted for each of K directions, (K, N): all, then without each group of samples in turn."""
    count = len(projections)
    require(2 <= groups <= count, "groups", groups, f"an integer from 2 to the number of samples, {count}")
    values, order = projections.T.contiguous().sort(dim=1)
    yield values
    for group in range(groups):
        yield values[order % groups != group].reshape(len(values), -1)  # as many in every direction


def _wasserstein2(x: Tensor, y: Tensor) -> Tensor:
    """Squared Wasserstein distance between sorted samples (K, N) and (K, M), for each row: (K,).

    Both quantile functions are constant between the levels i / N and j / M.
    """
    n, m = x.shape[1], y.shape[1]
    # In units of 1 / (n m), so that equal levels are equal numbers.
    levels = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    width = levels.diff(prepend=levels.new_zeros(1)).to(x.dtype) / (n * m)
    difference = x[:, (levels - 1) // m] - y[:, (levels - 1) // n]
    return difference.square() @ width
