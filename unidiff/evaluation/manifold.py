"""How much of the data samples cover, and how many of them lie there: balls around features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require, require_whole
from unidiff.evaluation.bootstrap import bootstrapped, mean_of
from unidiff.evaluation.distances import Estimate
from unidiff.evaluation.frechet import as_features

__all__ = ["DensityCoverage", "ManifoldTarget", "PrecisionRecall", "density_coverage", "precision_recall"]

_ROWS = 1024  # rows of a distance matrix held at a time
_ROUNDING = 1e-7  # of a radius: what is at the radius itself is inside, though distances are rounded


class PrecisionRecall(NamedTuple):
    """See `precision_recall`.

    Attributes:
        precision: Share of the samples that lie among the data.
        recall: Share of the data that lie among the samples.
    """

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """See `density_coverage`.

    Attributes:
        density: Mean number of balls of data that a sample lies in, divided by k.
        coverage: Share of the balls of data that hold a sample.
    """

    density: Estimate
    coverage: Estimate


@plain_arguments
def precision_recall(x: Tensor, y: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Precision and recall of samples x of the distribution of y (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of the balls around its features that reach to the k-th nearest other of the set.
    Precision is the share of x in the manifold of y, recall the share of y in that of x. Both depend on the sizes of
    the sets: compare them at equal ones. Standard errors: bootstrap over x, the radii of its balls unchanged.

    Args:
        x: Features of samples, (N, F), N above k.
        y: Features of data, (M, F), M above k.
        k: Which neighbour a ball reaches, at least 1.
    """
    return ManifoldTarget(y, k=k).precision_recall(x)


@plain_arguments
def density_coverage(x: Tensor, y: Tensor, *, k: int = 5) -> DensityCoverage:
    """Density and coverage of samples x of the distribution of y (Naeem et al. 2020, eq. 3 and 5).

    Only the data have balls, which outliers among the samples cannot enlarge: density is 1 and coverage 1 - ((M -
    1)...(M - k)) / ((N + M - 1)...(N + M - k)) in expectation for equal distributions (their lemmas 1 and 2). Standard
    errors: bootstrap over x.

    Args:
        x: Features of samples, (N, F).
        y: Features of data, (M, F), M above k.
        k: Which neighbour a ball reaches, at least 1.
    """
    return ManifoldTarget(y, balls=k).density_coverage(x)


class ManifoldTarget:
    """Features y, (M, F), with the radii of their balls computed once.

    Args:
        y: The features.
        k: See `precision_recall`; 0 where it is not asked for.
        balls: The k of `density_coverage`; 0 where it is not asked for.
    """

    def __init__(self, y: Tensor, k: int = 0, balls: int = 0) -> None:
        most = max(k, balls)
        self._y, self._k, self._balls = as_features("y", y, 2), k, balls
        require_whole("k", most)
        require(len(self._y) > most, "y", tuple(self._y.shape), f"more than k = {most} rows")
        self._centre = self._y.mean(0)
        self._y = self._y - self._centre
        self._radii = _radii(self._y, most)

    def precision_recall(self, x: Tensor) -> PrecisionRecall:
        """Of features x, (N, F); see the function of this name."""
        x = self._checked(x, self._k + 1)
        radii = self._radii[:, self._k - 1]
        own = _radii(x, self._k)[:, -1]
        precision, covers = [], []  # whether each y is in the ball of each x: (M, N)
        for rows, distances in _distances(x, self._y):
            precision.append((distances <= radii).any(1))
            covers.append((distances <= own[rows, None]).T)
        return PrecisionRecall(mean_of(torch.cat(precision)), _share(torch.cat(covers, 1)))

    def density_coverage(self, x: Tensor) -> DensityCoverage:
        """Of features x, (N, F); see the function of this name."""
        x, radii = self._checked(x, 1), self._radii[:, self._balls - 1]
        inside = torch.cat([distances <= radii for _, distances in _distances(x, self._y)])
        return DensityCoverage(mean_of(inside.sum(1).double() / self._balls), _share(inside.T))

    def _checked(self, x: Tensor, least: int) -> Tensor:
        x = as_features("x", x, least)
        require(x.shape[1] == self._y.shape[1], "x", tuple(x.shape), f"(N, {self._y.shape[1]}), as many features as y")
        return x - self._centre


def _share(covers: Tensor) -> Estimate:
    """The share of rows, (M, N) bool, that any sample covers."""

    def replicate(weights: Tensor) -> Tensor:
        present = (weights > 0).float().T
        covered = sum((part.float() @ present > 0).sum(0) for part in covers.split(_ROWS))
        return torch.as_tensor(covered).double() / len(covers)

    return bootstrapped(float(covers.any(1).double().mean()), replicate, covers.shape[1])


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances from rows of x to all of y, some rows at a time."""
    for start in range(0, len(x), _ROWS):
        rows = slice(start, min(start + _ROWS, len(x)))
        yield rows, torch.cdist(x[rows], y)


def _radii(x: Tensor, k: int) -> Tensor:
    """Distances to the 1st, ..., k-th nearest other sample, (N, k)."""
    found = []
    for rows, distances in _distances(x, x):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf
        found.append(distances.topk(k, dim=1, largest=False).values)
    return torch.cat(found) * (1 + _ROUNDING)
