"""Whether samples are copies of the training data: distances to the nearest of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.data.base import TensorSource
from unidiff.errors import require
from unidiff.evaluation.distances import Estimate

__all__ = ["Nearest", "memorization", "memorization_ratio", "nearest"]

_ROWS = 2048  # rows of a distance matrix held at a time


class Nearest(NamedTuple):
    """The nearest training sample of each sample.

    Attributes:
        distance: Euclidean distance, (N,) float64.
        row: Which it is, (N,).
    """

    distance: Tensor
    row: Tensor


@torch.no_grad()
def nearest(x: Tensor, batches: Iterable[Tensor]) -> Nearest:
    """The nearest of data that come in batches, in order; a copy is at distance 0 exactly."""
    x = x.detach().cpu().flatten(1).float()
    # The products are of float32, whose rounding grows with the distance of the data from the origin.
    centre = x.double().mean(0).float()
    near = x - centre
    best, index, start = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64), 0
    distance = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for batch in batches:
        flat = batch.detach().cpu().flatten(1).float()
        shifted = flat - centre
        squares = shifted.square().sum(1)
        for rows in torch.arange(len(x)).split(_ROWS):
            # |x - y|^2 - |x|^2, by a product of matrices; the nearest is then measured without its cancellation.
            value, found = torch.addmm(squares, near[rows], shifted.T, alpha=-2).min(1)
            closer = value < best[rows]
            chosen, best[rows] = rows[closer], torch.minimum(value, best[rows])
            index[chosen] = found[closer] + start
            distance[chosen] = (x[chosen].double() - flat[found[closer]].double()).norm(dim=1)
        start += len(flat)
    return Nearest(distance, index)


@plain_arguments
def memorization_ratio(x: Tensor, train: Tensor, held_out: Tensor) -> Estimate:
    """Mean distance from samples to the nearest training sample, divided by that from held-out data.

    Samples of the data's own distribution and held-out data are exchangeable, so they have one law of that distance,
    whatever the training set (Meehan et al. 2020, section 3, test whether they do): the ratio is 1 up to its error. It
    is 0 for copies of training samples. Far from all data it is above 1. Euclidean, in the values of the samples.

    Args:
        x: Samples, (N, *shape).
        train: Training data, (M, *shape).
        held_out: Data that were not trained on, (L, *shape).

    Returns:
        The ratio, and its standard error from the scatter of both means.
    """
    for name, value in (("x", x), ("train", train), ("held_out", held_out)):
        fits = value.ndim >= 2 and len(value) >= 2 and value.shape[1:] == x.shape[1:] and bool(value.isfinite().all())
        require(fits, name, tuple(value.shape), "finite samples, at least 2, all of one shape")
    batches = TensorSource(train, "train").all_batches
    return memorization(nearest(x, batches()), nearest(held_out, batches()))


def memorization(found: Nearest, held_out: Nearest) -> Estimate:
    """The ratio of the mean distances, with its standard error by the delta method."""
    means = [float(part.distance.mean()) for part in (found, held_out)]
    errors = [float(part.distance.std()) / math.sqrt(len(part.distance)) for part in (found, held_out)]
    require(means[1] > 0, "held_out", "copies of training data", "data that are not among the training data")
    ratio = means[0] / means[1]
    return Estimate(ratio, math.hypot(errors[0], ratio * errors[1]) / means[1])
