"""The kernel distance of features: the unbiased maximum mean discrepancy with a cubic kernel."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require, require_whole
from unidiff.evaluation.bootstrap import parts
from unidiff.evaluation.distances import Estimate
from unidiff.evaluation.frechet import as_features

__all__ = ["KernelTarget", "kernel_distance"]

_ROWS = 1024  # rows of a kernel matrix held at a time


@plain_arguments
def kernel_distance(x: Tensor, y: Tensor, *, groups: int = 10) -> Estimate:
    """Squared maximum mean discrepancy with the kernel (x.y / F + 1)^3 (Binkowski et al. 2018, section 3), in float64.

    Of Inception's features it is the KID. The estimate is Gretton et al.'s (2012, eq. 3): unbiased, so its mean is 0
    for equal distributions, and it may be negative. It compares moments up to the third.

    The standard error is that of the mean of the estimates of `groups` disjoint random subsets of both sets; for equal
    distributions it is too large by sqrt(groups), because the estimate then scatters as 1 / n.

    Args:
        x: Features of samples, (N, F).
        y: Features of data, (M, F).
        groups: Number of subsets, from 2 to half of N and of M.
    """
    return KernelTarget(y, groups).distance(x)


class KernelTarget:
    """Features y, (M, F), with the sums of their kernel computed once; see `kernel_distance`."""

    def __init__(self, y: Tensor, groups: int = 10) -> None:
        self._y, self._groups = as_features("y", y, 4), groups
        require_whole("groups", groups, 2, len(self._y) // 2)

    @cached_property
    def _within(self) -> list[float]:
        """The mean kernel of pairs of y: of all, then of each group."""
        return [_own(part) for part in _parts(self._y, self._groups)]

    def distance(self, x: Tensor) -> Estimate:
        """The distance of features x, (N, F); see `kernel_distance`."""
        x = as_features("x", x, 4)
        require(x.shape[1] == self._y.shape[1], "x", tuple(x.shape), f"(N, {self._y.shape[1]}), as many features as y")
        require_whole("groups", self._groups, 2, len(x) // 2)
        pairs = zip(_parts(x, self._groups), _parts(self._y, self._groups), self._within)
        value, *of_groups = (_own(a) + within - 2 * _sum(a, b) / (len(a) * len(b)) for a, b, within in pairs)
        return Estimate(value, float(torch.tensor(of_groups).std()) / math.sqrt(self._groups))


def _parts(x: Tensor, groups: int) -> list[Tensor]:
    return [x, *parts(x, groups)]


def _sum(x: Tensor, y: Tensor) -> float:
    """The sum of the kernel over all pairs."""
    kernels = (torch.addmm(x.new_ones(()), part, y.T, alpha=1 / x.shape[1]) for part in x.split(_ROWS))
    return float(sum((kernel.square() * kernel).sum() for kernel in kernels))


def _own(x: Tensor) -> float:
    """The mean kernel of two different samples of x."""
    itself = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
    return (_sum(x, x) - float(itself)) / (len(x) * (len(x) - 1))
