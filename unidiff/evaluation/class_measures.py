"""What a classifier finds in samples: how sure it is, how varied they are, and how the classes are distributed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require
from unidiff.evaluation.bootstrap import bootstrapped
from unidiff.evaluation.distances import Estimate

__all__ = ["ClassHistogram", "class_histogram", "classifier_score"]


def _checked(probabilities: Tensor) -> Tensor:
    require(probabilities.ndim == 2 and len(probabilities) > 1, "probabilities", tuple(probabilities.shape), "(N, K)")
    p = probabilities.detach().to("cpu", torch.float64)
    valid = bool((p >= 0).all()) and bool(((p.sum(1) - 1).abs() < 1e-3).all())
    require(valid, "probabilities", "rows that are none", "rows >= 0 with sum 1, (N, K)")
    return p


@plain_arguments
def classifier_score(probabilities: Tensor) -> Estimate:
    """exp(E KL(p(y | x) || p(y))) with p(y) the mean of p(y | x): Salimans et al. 2016, section 4.

    From 1, if all samples look alike to the classifier, to the number K of classes, if it is sure of each and all are
    as frequent. Of Inception's probabilities it is the inception score. Standard error: bootstrap.

    Args:
        probabilities: Those of the classes for each sample, (N, K).
    """
    p = _checked(probabilities)
    own = torch.special.entr(p).sum(1)

    def score(weights: Tensor) -> Tensor:
        return (torch.special.entr(weights @ p).sum(1) - weights @ own).exp()

    value = float(score(torch.full((1, len(p)), 1 / len(p), dtype=p.dtype))[0])
    return bootstrapped(value, lambda weights: score(weights / len(p)), len(p))


@dataclass(frozen=True)
class ClassHistogram:
    """Which classes a classifier finds.

    Attributes:
        counts: Samples of each class.
        expected: Data of each class, with which they are compared.
        chi_square: Pearson's statistic for equal distributions of both.
        degrees: Its degrees of freedom: classes that occur, less 1.
        p_value: Probability of a statistic at least as large if the distributions are equal.
    """

    counts: tuple[int, ...]
    expected: tuple[int, ...]
    chi_square: float
    degrees: int
    p_value: float


@plain_arguments
def class_histogram(probabilities: Tensor, data: Tensor) -> ClassHistogram:
    """The most probable class of each sample, counted, and Pearson's (1900) test against that of data.

    The statistic of the 2 x K table of both counts, sum (O - E)^2 / E with E from the sums of rows and columns.

    Args:
        probabilities: Those of the classes for each sample, (N, K).
        data: The same for data, (M, K).
    """
    pair = [_checked(probabilities), _checked(data)]
    require(data.shape[1:] == probabilities.shape[1:], "data", tuple(data.shape), f"(M, {probabilities.shape[1]})")
    table = torch.stack([p.argmax(1).bincount(minlength=p.shape[1]) for p in pair]).double()
    found = table[:, table.sum(0) > 0]
    expected = torch.outer(found.sum(1), found.sum(0)) / found.sum()
    statistic, degrees = float(((found - expected).square() / expected).sum()), found.shape[1] - 1
    counts, of_data = (tuple(map(int, row)) for row in table)
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    p_value = float(torch.special.gammaincc(*half)) if degrees else 1.0
    return ClassHistogram(counts, of_data, statistic, degrees, p_value)
