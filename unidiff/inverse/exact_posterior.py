"""The exact posterior of a Gaussian mixture given a linear measurement: the reference for approximations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unidiff.errors import ParameterError, require
from unidiff.exact import GaussianMixture
from unidiff.inverse.operators import Operator

__all__ = ["conditioned"]


def conditioned(mixture: GaussianMixture, operator: Operator, y: Tensor, noise_std: float = 0.0) -> GaussianMixture:
    """The exact denoiser of x0 given y = A x0 + s n, x0 from a mixture: again a mixture.

    Component k becomes N(m_k + G_k (y - A m_k), (I - G_k A) C_k) with G_k = C_k A^T (A C_k A^T + s^2 I)^{-1}, and its
    weight is multiplied by N(y; A m_k, A C_k A^T + s^2 I).

    Args:
        mixture: The model of the data.
        operator: A.
        y: One measurement, (*measured).
        noise_std: s >= 0; 0 for a noiseless measurement, where A C_k A^T must not be singular.

    Returns:
        The posterior, on the mixture's process.

    Raises:
        ParameterError: If y is not of the shape of a measurement, or noise_std is below 0 or too small for A; where
            the modes of the process differ in SNR, if the covariance of the posterior is not diagonal in them.
    """
    require(0 <= noise_std < math.inf, "noise_std", noise_std, "a number >= 0")
    shape, size = mixture.shape, math.prod(mixture.shape)
    count = len(mixture.means)
    unit = torch.eye(size, dtype=torch.float64)
    rows = operator.apply(unit.reshape(size, *shape))
    require(rows.shape[1:] == y.shape, "y", tuple(y.shape), f"one measurement, {tuple(rows.shape[1:])}")
    A = rows.flatten(1).mT
    axes = unit.expand(count, size, size) if mixture.axes is None else mixture.axes
    roots = (axes * mixture.variances.sqrt()[:, None, :]).mT.reshape(count * size, *shape)
    roots = mixture.process.basis.inverse(roots).reshape(count, size, size)  # the rows of R_k, C_k = R_k^T R_k
    means = mixture.process.basis.inverse(mixture.means.reshape(count, *shape)).flatten(1)
    projected = roots @ A.mT  # R_k A^T
    spread = projected.mT @ projected + noise_std**2 * torch.eye(len(A), dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(spread)
    if bool((eigenvalues[:, 0] <= 1e-12 * eigenvalues[:, -1]).any()):  # an error of 1e-16 becomes one of 1e-4
        allowed = "> 0 where A C A^T is singular in float64 (redundant measurements)"
        raise ParameterError("noise_std", f"must be {allowed}, got {noise_std:g}")
    residual = y.to(torch.float64).flatten() - means @ A.mT
    gain = torch.linalg.solve(spread, projected.mT @ roots).mT  # (K, D, m)
    new_means = means + torch.einsum("kdm,km->kd", gain, residual)
    keep = unit - gain @ A
    # Joseph's form is symmetric and positive semi-definite to the last bit.
    covariance = (roots @ keep.mT).mT @ (roots @ keep.mT) + noise_std**2 * gain @ gain.mT
    log_weights = mixture.log_weights - 0.5 * (
        (residual * torch.linalg.solve(spread, residual[..., None])[..., 0]).sum(-1) + torch.linalg.slogdet(spread)[1]
    )
    weights = torch.exp(log_weights - log_weights.max()).clamp(min=1e-300)
    return GaussianMixture(mixture.process, new_means.reshape(count, *shape), covariance, weights)
