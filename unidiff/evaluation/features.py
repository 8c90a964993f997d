"""Linear discriminants: a feature space for labelled images, in which distances separate the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import require

__all__ = ["Discriminants"]


@dataclass(frozen=True, eq=False)
class Discriminants(PlainArguments):
    """Linear discriminants: the directions of largest between-class variance relative to that within classes.

    With S_w the covariance of the samples about the means of their classes and S_b that of these means, the rows of
    `directions` solve S_b w = value S_w w with w^T S_w w = 1 (Fisher 1936; Rao 1948): K classes have K - 1 such
    directions, and in their coordinates each class has about unit variance. S_w is shrunk toward a multiple of I by
    Ledoit & Wolf's (2004) rule, as constant pixels leave it singular. The fit is in closed form and deterministic.

    Being linear, it is insensitive to strokes, textures and any difference that all classes share: use it beside the
    distance in data space.

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
