"""How sharp images are: the size of their second differences."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import require
from unidiff.evaluation.bootstrap import mean_of
from unidiff.evaluation.distances import Estimate

__all__ = ["laplacian", "sharpness"]


@plain_arguments
def sharpness(x: Tensor) -> Estimate:
    """Root mean square of the Laplacian of each sample, averaged over the samples.

    The Laplacian is that of second differences along each axis with reflecting ends, of eigenvalue -(2 - 2 cos(pi k /
    n)) on the cosine of frequency k along n pixels: a blur of exp(-t lambda) lowers the measure, noise raises it. The
    variance of a Laplacian is a usual measure of focus (Pech-Pacheco et al. 2000); read this one beside that of data.

    Args:
        x: Signals, images or volumes, (N, C, *sizes).
    """
    require(x.ndim >= 3 and len(x) > 1, "x", tuple(x.shape), "samples (N, C, *sizes), at least 2")
    return mean_of(laplacian(x))


def laplacian(x: Tensor) -> Tensor:
    """Root mean square of the Laplacian of each sample, (N,) float64."""
    x = x.detach().to("cpu", torch.float64)
    total = torch.zeros_like(x)
    for axis in range(2, x.ndim):
        ends = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        total += torch.cat([ends[0], x, ends[1]], axis).diff(n=2, dim=axis)
    return total.square().flatten(1).mean(1).sqrt()
