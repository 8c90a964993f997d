"""Denoisers in closed form: the reference for solvers and networks.

They depend on a level's alpha and sigma alone, so they may also be evaluated below the process's t_min.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.classifier import Classifier
from unidiff.condition.check import condition_of
from unidiff.condition.vector import Label
from unidiff.denoiser import Denoiser
from unidiff.errors import require
from unidiff.parameterization import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale, eps_of
from unidiff.tensors import require_own_shape

__all__ = ["Empirical", "GaussianMixture", "MixtureClassifier"]


def _prediction(x0: Tensor, u: Tensor, level: Level) -> Prediction:
    """The prediction in the dtype of u from x0, (B, D); u - alpha x0 cancels, so it is computed in float64."""
    x0 = x0.reshape(u.shape)
    return Prediction(x0.to(u.dtype), eps_of(x0, u, level).to(u.dtype), level)


class GaussianMixture(Denoiser):
    """The exact denoiser when the data are a mixture of Gaussians.

    Its classes are the components: with a label k the data are N(m_k, C_k) alone, with -1 or none the whole mixture.

    If x0 ~ sum_k w_k N(m_k, C_k) then u_t ~ sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I), and E[x0 | u_t] is the
    posterior-weighted sum of m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^{-1} (u_t - alpha m_k).

    Args:
        process: The process of the noisy states.
        means: Component means m_k in pixels, (K, *shape).
        covariance: A number v for v I, variances (K,) for v_k I, one matrix (D, D) for all components, or (K, D, D),
            with D the size of `shape`. Positive semi-definite. Where the modes of the process differ in SNR, a matrix
            must be diagonal in its basis.
        weights: Component weights, (K,), positive; normalized to sum 1. Equal by default.
    """

    closed_form = True
    conditions: tuple[Label]
    shape: tuple[int, ...]
    means: Tensor
    log_weights: Tensor
    variances: Tensor
    axes: Tensor | None

    def __init__(
        self,
        process: Process,
        means: Tensor | Sequence[object],
        covariance: float | Tensor,
        weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        means = torch.as_tensor(means, dtype=torch.float64)
        require(means.ndim >= 2, "means", tuple(means.shape), "a tensor (K, *shape), one row per component")
        count, self.shape = len(means), tuple(means.shape[1:])
        self.conditions = (Label(count),)
        flat = process.basis.forward(means).flatten(1)
        weights = torch.as_tensor([1.0] * count if weights is None else weights, dtype=torch.float64)
        positive = weights.shape == (count,) and bool((weights > 0).all())
        require(positive, "weights", weights, f"{count} positive numbers")
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        variances, axes = self._principal(covariance, count, flat.shape[1])
        require(bool((variances >= 0).all()), "covariance", covariance, "positive semi-definite")
        self.register_buffer("means", flat)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("variances", variances)  # (K, D), along the columns of `axes`
        self.register_buffer("axes", axes)  # (K, D, D), or None where every direction is an axis

    def _principal(self, covariance: Tensor, count: int, size: int) -> tuple[Tensor, Tensor | None]:
        """Variances (K, D) along axes (K, D, D), in mode coordinates; no axes where the modes are."""
        if covariance.ndim <= 1 and covariance.shape in ((), (count,)):
            return covariance.expand(count)[:, None].expand(count, size).contiguous(), None
        allowed = f"a number, ({count},), ({size}, {size}) or ({count}, {size}, {size})"
        fits = covariance.shape in ((size, size), (count, size, size))
        require(fits, "covariance", tuple(covariance.shape), allowed)
        basis = self.process.basis
        for _ in range(2):  # V^T C V, rows first
            rows = basis.forward(covariance.reshape(-1, *self.shape)).reshape(covariance.shape)
            covariance = rows.mT
        if basis.shape:
            variances = covariance.diagonal(dim1=-2, dim2=-1)
            beside = (covariance - variances.diag_embed()).abs().max()
            allowed = f"a matrix that {basis!r} makes diagonal: the modes of {self.process!r} differ in SNR"
            require(bool(beside <= 1e-9 * variances.abs().max()), "covariance", tuple(covariance.shape), allowed)
            axes = None
        else:
            variances, axes = torch.linalg.eigh(covariance)
            axes = axes.expand(count, size, size).contiguous()
        # Rounding may leave a singular matrix with eigenvalues of -1e-17.
        variances = torch.where(variances.abs() < 1e-14 * variances.abs().max(), 0.0, variances)
        return variances.expand(count, size).contiguous(), axes

    def _along_axes(self, u: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals u - alpha m_k along the components' axes (B, K, D), their variances, log joint densities (B, K)."""
        require_own_shape(u.shape[1:], self.shape)
        flat = u.flatten(1).to(self.means.dtype)
        alpha, sigma = (_align(scale, self.shape, flat)[..., None, :] for scale in (level.alpha, level.sigma))
        residual = flat[:, None, :] - alpha * self.means
        if self.axes is not None:
            residual = torch.einsum("bkd,kde->bke", residual, self.axes)
        variance = alpha**2 * self.variances + sigma**2
        log_joint = self.log_weights - 0.5 * (residual**2 / variance + (2 * math.pi * variance).log()).sum(-1)
        return residual, variance, log_joint

    def log_joint(self, u: Tensor, level: Level) -> Tensor:
        """Exact log joint density of the noisy state u, (B, *modes), and each component, in nats: (B, K)."""
        return self._along_axes(u, level)[2]

    def log_prob(self, u: Tensor, level: Level) -> Tensor:
        """Exact log density of the noisy state u, (B, *modes), in nats: (B,)."""
        return self.log_joint(u, level).logsumexp(-1)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        residual, variance, log_joint = self._along_axes(u, level)
        for name in cond:
            condition_of(self, name)
        if (label := cond.get("label")) is not None:
            self.conditions[0].check_in_loop(label, len(u))
            label = label.to(u.device)
            others = torch.arange(len(self.means), device=u.device) != label[:, None]
            log_joint = log_joint.masked_fill(others & (label >= 0)[:, None], -math.inf)
        shift = _align(level.alpha, self.shape, residual)[..., None, :] * self.variances / variance * residual
        if self.axes is not None:
            shift = torch.einsum("bke,kde->bkd", shift, self.axes)
        x0 = torch.einsum("bk,bkd->bd", log_joint.softmax(-1), self.means + shift)
        return _prediction(x0, u, level)

    def draw(self, noise: Tensor, uniform: Tensor, **cond: Tensor) -> Tensor:
        """Exact samples of the whole mixture, or of the components that are the labels; see `Denoiser.draw`."""
        upper = self.log_weights.exp().cumsum(0)[:-1]
        component = torch.searchsorted(upper, uniform.to(upper.dtype))
        if (label := cond.get("label")) is not None:
            label = label.to(component.device)
            component = torch.where(label >= 0, label, component)
        shift = self.variances[component].sqrt() * noise.flatten(1).to(self.means.dtype)
        if self.axes is not None:
            shift = torch.einsum("be,bde->bd", shift, self.axes[component])
        modes = (self.means[component] + shift).reshape(noise.shape)
        return self.process.basis.inverse(modes).to(noise.dtype)


class MixtureClassifier(Classifier):
    """The exact classifier of a noisy mixture: log p(k | u) = log w_k + log N(u; alpha m_k, ...) + a constant.

    Args:
        mixture: The mixture; its components are the classes.
    """

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.process = mixture.process
        self.classes = len(mixture.means)

    def forward(self, u: Tensor, level: Level) -> Tensor:
        return self.mixture.log_joint(u, level).to(u.dtype)


class Empirical(Denoiser):
    """The optimal denoiser on a finite data set: what a network of unlimited capacity would learn from it.

    E[x0 | u_t] = sum_i x_i softmax_i(-|u_t - alpha x_i|^2 / (2 sigma^2)) (De Bortoli 2022; Karras et al. 2022, eq. 57).
    Sampling from it reproduces the data set: it memorises by construction.

    Args:
        process: The process of the noisy states.
        data: The data set in pixels, (N, *shape).
    """

    closed_form = True
    conditions = ()
    shape: tuple[int, ...]
    data: Tensor

    def __init__(self, process: Process, data: Tensor) -> None:
        super().__init__()
        self.process = process
        require(data.ndim >= 2 and len(data) > 0, "data", tuple(data.shape), "a tensor (N, *shape) with N at least 1")
        self.shape = tuple(data.shape[1:])
        self.register_buffer("data", process.basis.forward(data.to(torch.float64)).flatten(1))  # in modes

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        for name in cond:
            condition_of(self, name)  # which it has not
        require_own_shape(u.shape[1:], self.shape)
        flat = u.flatten(1).to(self.data.dtype)
        alpha, sigma = (_align(scale, self.shape, flat) for scale in (level.alpha, level.sigma))
        # |u - alpha x|^2 / sigma^2 without |u|^2, which no softmax sees: matrix products instead of a (B, N, D) array.
        snr = ((alpha / sigma) ** 2).expand(1 if alpha.ndim < 2 else len(alpha), flat.shape[1])
        distance = snr @ self.data.square().T - 2 * (flat * alpha / sigma**2) @ self.data.T
        x0 = (-distance / 2).softmax(-1) @ self.data
        return _prediction(x0, u, level)

    def draw(self, noise: Tensor, uniform: Tensor, **cond: Tensor) -> Tensor:
        """Entries of the data set with replacement; see `Denoiser.draw`. The noise is not used."""
        chosen = (uniform.to(self.data.dtype) * len(self.data)).long().clamp(max=len(self.data) - 1)
        return self.process.basis.inverse(self.data[chosen].reshape(noise.shape)).to(noise.dtype)


def _align(scale: Scale, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A coefficient in dtype and on the device of `like`.

    (1,) for a number, (B, 1) for one per sample, (D,) or (B, D) where modes differ.
    """
    if not isinstance(scale, Tensor):
        return like.new_full((1,), scale)
    scale = scale.to(like)
    if scale.ndim <= len(shape):  # (*modes): at one time
        return scale.expand(shape).flatten()
    return scale.flatten(1) if scale[0].numel() == 1 else scale.expand(len(scale), *shape).flatten(1)
