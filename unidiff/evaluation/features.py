"""A small feature space for labelled images, in which a distance sees what tells the classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.errors import require

__all__ = ["Discriminants"]


@dataclass(frozen=True, eq=False)
class Discriminants:
    """Linear discriminants: the directions along which classes lie farthest apart, for their spread within.

    With S_w the covariance of the samples about the means of their classes and S_b that of these means, the rows of
    `directions` solve S_b w = value S_w w with w^T S_w w = 1 (Fisher 1936; Rao 1948): K classes have K - 1 such
    directions, and in their coordinates each class has about unit variance. S_w is shrunk toward a multiple of I by
    Ledoit & Wolf's (2004) rule, as pixels that never change leave it singular. It is fitted in closed form, without
    random numbers.

    What it does not see: it is linear, so it knows nothing of strokes or textures, and two sets of images that differ
    only in what all classes share are alike to it. Read it beside the distance in data space.

    Args:
        mean: Mean of the samples it was fitted to, (D,) float64.
        directions: The discriminants, (K - 1, D) float64.
    """

    mean: Tensor
    directions: Tensor

    @classmethod
    def fit(cls, x: Tensor, labels: Tensor) -> Discriminants:
        """Fit to samples, (N, *shape), with labels, (N,) integers: at least two classes."""
        classes = labels.unique()
        require(len(classes) >= 2, "labels", classes.tolist(), "labels of at least two classes")
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        flat = x.detach().to("cpu", torch.float64).flatten(1)
        fitted = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(flat.numpy(), labels.numpy())
        directions = torch.from_numpy(fitted.scalings_[:, : len(classes) - 1].T.copy())
        return cls(flat.mean(0), directions)

    def __call__(self, x: Tensor) -> Tensor:
        """Coordinates of samples, (N, *shape), along the discriminants: (N, K - 1) float64."""
        return (x.detach().to("cpu", torch.float64).flatten(1) - self.mean) @ self.directions.T
