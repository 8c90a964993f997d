"""The Frechet distance of two Gaussians that are fitted to features, and its bias."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.bootstrap import bootstrapped, parts
from unidiff.evaluation.distances import Estimate

__all__ = ["as_features", "fitted_frechet", "frechet_bias", "frechet_distance", "gaussian_frechet"]


@plain_arguments
def gaussian_frechet(mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor) -> float:
    """Frechet distance |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2) of two Gaussians.

    Dowson & Landau 1982, eq. 4: the squared Wasserstein distance of order 2. The trace of the last root is the sum of
    the roots of the eigenvalues of a symmetric matrix, all real and at least 0 but for rounding.

    Args:
        mean_x: (F,).
        covariance_x: (F, F), symmetric.
        mean_y: (F,).
        covariance_y: (F, F), symmetric.
    """
    size = mean_x.shape
    for name, value, shape in (
        ("mean_x", mean_x, (*size[:1],)),
        ("covariance_x", covariance_x, (*size[:1],) * 2),
        ("mean_y", mean_y, (*size[:1],)),
        ("covariance_y", covariance_y, (*size[:1],) * 2),
    ):
        require(value.shape == shape and len(size) == 1, name, tuple(value.shape), "(F,) for means, (F, F) otherwise")
    return _frechet(mean_x.double(), covariance_x.double(), mean_y.double(), _root(covariance_y.double()))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of a covariance, (F, F)."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _frechet(mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, root_y: Tensor) -> float:
    between = torch.linalg.eigvalsh(root_y @ covariance_x @ root_y).clamp(min=0).sqrt().sum()
    traces = covariance_x.trace() + root_y.square().sum()
    return float((mean_x - mean_y).square().sum() + traces - 2 * between)


def as_features(name: str, x: Tensor, least: int = 2) -> Tensor:
    """Features (N, F) as float64 on the CPU; a ParameterError if they are not finite, or fewer than `least`."""
    require(x.ndim == 2 and len(x) >= least, name, tuple(x.shape), f"features (N, F), N at least {least}")
    x = x.detach().to("cpu", torch.float64)
    if not bool(x.isfinite().all()):
        raise ParameterError(name, "contains NaN or infinity. Remove such samples.")
    return x


def _moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of features; of a resample with these counts."""
    weights = torch.ones(len(x), dtype=x.dtype) if weights is None else weights
    mean = weights @ x / len(x)
    centred = x - mean
    return mean, (centred * weights[:, None]).T @ centred / (len(x) - 1)


def fitted_frechet(x: Tensor, y: Tensor) -> float:
    """The distance of the Gaussians fitted to two sets of features, without its error; see `frechet_distance`."""
    return gaussian_frechet(*_moments(x), *_moments(y))


@plain_arguments
def frechet_distance(x: Tensor, y: Tensor, *, corrected: bool = False) -> Estimate:
    """Frechet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6), in float64.

    Of Inception's features it is the FID; of any other network's it is not. It is biased: two sets of one distribution
    are `frechet_bias` apart. The bias is a series in 1 / n, whose first term `corrected` removes (after Chong & Forsyth
    2020, section 3.2): twice the value less the mean of the values of both pairs of random halves. The standard error
    is the bootstrap's over x; y is taken as it is.

    Args:
        x: Features of samples, (N, F).
        y: Features of data, (M, F).
        corrected: Remove the bias to first order; both sets must have more than 2 F rows.
    """
    x, y = as_features("x", x, 4), as_features("y", y, 4)
    require(x.shape[1] == y.shape[1], "y", tuple(y.shape), f"(M, {x.shape[1]}), as many features as x")
    for name, rows in (("x", x), ("y", y)):
        fewest = 2 * x.shape[1] + 1  # a half that is not larger has a singular covariance, and no series in 1 / n
        allowed = f"at least {fewest} rows to be corrected"
        require(not corrected or len(rows) >= fewest, name, tuple(rows.shape), allowed)
    value = fitted_frechet(x, y)
    if corrected:
        value = 2 * value - sum(map(fitted_frechet, parts(x, 2), parts(y, 2))) / 2
    mean, covariance = _moments(y)
    root = _root(covariance)

    def replicate(weights: Tensor) -> Tensor:
        return torch.tensor([_frechet(*_moments(x, row), mean, root) for row in weights], dtype=x.dtype)

    return bootstrapped(value, replicate, len(x))


@plain_arguments
def frechet_bias(covariance: Tensor, n: int, m: int) -> float:
    """The expected `frechet_distance` of two sets of one Gaussian, of n and m samples, to first order in 1 / n, 1 / m.

    With the eigenvalues l of the covariance C, the means differ by tr C / n, and to second order the distance of C
    from C + E is half the sum of E_ij^2 / (l_i + l_j) (the Bures metric), where E_ij of n samples has the variance l_i
    l_j (1 + [i = j]) / (n - 1). Both sets contribute. For one feature of variance 1 and m -> infinity it is 3 / (2 n).

    Args:
        covariance: C, (F, F).
        n: Samples of one set, at least 2.
        m: Samples of the other, at least 2.
    """
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]
    require(square, "covariance", tuple(covariance.shape), "(F, F)")
    for name, value in (("n", n), ("m", m)):
        require_whole(name, value, 2)
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0)
    sums = values[:, None] + values
    products = torch.outer(values, values) / torch.where(sums > 0, sums, 1.0)
    bures = (products.sum() + products.diagonal().sum()) / 2
    return float(sum(values.sum() / count + bures / (count - 1) for count in (n, m)))
