"""The renormalised heat equation solved for each image: the mean of the state is not a linear function of the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unidiff.arguments import PlainArguments
from unidiff.basis import DCT
from unidiff.precision import precise
from unidiff.process.base import derivative
from unidiff.process.heat import RenormalizedHeat

__all__ = ["PerSampleHeat"]


class _Coefficients(NamedTuple):
    """What all images have in common at times (n,), and its derivatives: each (n, *shape), float64."""

    log_keep: Tensor  # log sqrt(1 - eta)
    log_fading: Tensor  # log d_k
    log_sigma: Tensor
    log_keep_rate: Tensor
    log_fading_rate: Tensor
    log_sigma_rate: Tensor


@dataclass(frozen=True)
class PerSampleHeat(PlainArguments):
    """The renormalised heat equation with every image's own constraint: |grad m|^2 = (1 - eta) R(u_0) at every time.

    The state is u_t = m(t, u_0) + sigma(t) eps. m is the exact solution of the equation (Higham, Higham & Grindrod, eq.
    20-21: the heat flow of each mode, rescaled once) times sqrt(1 - eta),

        m_k = sqrt(1 - eta) e^rho d_k u_0k,   rho(t; u_0) = -1/2 log(sum_k lambda_k u_0k^2 d_k^2 / R(u_0)),

    with R(u_0) = sum_k lambda_k u_0k^2, over the channels too. The share of noise eta, the fading d_k and sigma are
    those of the process `linear`, which has one rho for all images; and as there, the mean of an image (k = 0) fades by
    sqrt(1 - eta) alone. An image without a gradient is not rescaled: its rho is 0.

    It is not a `Process`: m is not linear in u_0, so the expected data do not give the expected m, and samplers built
    on E[u_0 | u_t] are wrong on it (see `PlugIn`). Its flow, the conditional expectation of `velocity`, has the right
    distribution at every time (Lipman et al. 2023, theorem 1; Albergo et al. 2023, section 2.2), for any m and sigma.

    Args:
        linear: The process with the rescaling common to all images; fit it to the data first, or use `fit`.
    """

    linear: RenormalizedHeat = field(default_factory=RenormalizedHeat)

    @property
    def basis(self) -> DCT:
        """The cosines."""
        return self.linear.basis

    @property
    def t_min(self) -> float:
        """The smallest time of the linear process."""
        return self.linear.t_min

    def fit(self, batches: Iterable[Tensor]) -> PerSampleHeat:
        """The process for these data, from batches (B, ..., *shape) of pixels; see `RenormalizedHeat.fit`."""
        return replace(self, linear=cast(RenormalizedHeat, self.linear.fit(batches)))

    def gradient_energy(self, u: Tensor) -> Tensor:
        """|grad u|^2 = sum_k lambda_k u_k^2 of each state in modes, (B, ..., *shape), channels added: (B,)."""
        return (self.linear.eigenvalues.to(u) * u.square()).flatten(1).sum(1)

    def sigma(self, t: float | Tensor, like: Tensor) -> Tensor:
        """Scale of the noise in each mode, at one time or times (B,): broadcasts against `like`, (B, ..., *shape)."""
        return self._at(t, like).log_sigma.exp().to(like.dtype)

    def log_sigma_rate(self, t: float | Tensor, like: Tensor) -> Tensor:
        """Sigma' / sigma in each mode; see `sigma`."""
        return self._at(t, like).log_sigma_rate.to(like.dtype)

    def mean(self, u0: Tensor, t: float | Tensor) -> Tensor:
        """The mean m(t, u0) of the state.

        Args:
            u0: Images in modes, (B, ..., *shape).
            t: One time in [0, 1], or times (B,).

        Returns:
            m, shaped like u0 and in its dtype; computed in float64 where the device has it.
        """
        return self._mean_and_rate(u0, self._at(t, u0))[0].to(u0.dtype)

    def mean_rate(self, u0: Tensor, t: float | Tensor) -> Tensor:
        """The time derivative of `mean`, shaped like u0."""
        return self._mean_and_rate(u0, self._at(t, u0))[1].to(u0.dtype)

    def perturb(self, u0: Tensor, eps: Tensor, t: float | Tensor) -> Tensor:
        """The noisy state m(t, u0) + sigma(t) eps, of data and noise in modes, (B, ..., *shape)."""
        at = self._at(t, u0)
        return (self._mean_and_rate(u0, at)[0] + at.log_sigma.exp() * eps).to(u0.dtype)

    def velocity(self, u0: Tensor, eps: Tensor, t: float | Tensor) -> Tensor:
        """The time derivative of the state with data and noise held, m' + sigma' eps: what velocity matching regresses.

        Args:
            u0: Images in modes, (B, ..., *shape).
            eps: Standard normal noise, shaped like u0.
            t: One time, or times (B,).
        """
        at = self._at(t, u0)
        return (self._mean_and_rate(u0, at)[1] + at.log_sigma_rate * at.log_sigma.exp() * eps).to(u0.dtype)

    def still(self, u: Tensor, velocity: Tensor, t: float) -> Tensor:
        """The expected data, (B, ..., *shape), from a state and its expected velocity at a time near 0.

        Heat stands still there (tau' = O(t^3)), so the velocity is (log sqrt(1 - eta))' m + sigma' eps, and u = m +
        sigma eps gives m, which is sqrt(1 - eta) u_0.
        """
        at = self._at(t, u)
        m = (at.log_sigma_rate * u - velocity) / (at.log_sigma_rate - at.log_keep_rate)
        return (m * torch.exp(-at.log_keep)).to(u.dtype)

    def _at(self, t: float | Tensor, like: Tensor) -> _Coefficients:
        """The coefficients at t on the device of `like`, (B, ..., *shape), broadcast against it."""
        modes = self.linear.shape
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").detach().flatten()
        if len(times) not in (1, len(like)):
            raise ValueError(f"t must be one time, or one for each of {len(like)} samples, got {len(times)}")
        if like.shape[like.ndim - len(modes) :] != modes:
            raise ValueError(f"the last axes of the state must be {modes}, got shape {tuple(like.shape)}")
        values = _at_one_time(self.linear, float(times)) if len(times) == 1 else _coefficients(self.linear, times)
        shape = len(times), *[1] * (like.ndim - 1 - len(modes)), *modes
        dtype = precise(like.device)
        return _Coefficients(*(value.to(like.device, dtype, non_blocking=True).reshape(shape) for value in values))

    def _mean_and_rate(self, u0: Tensor, at: _Coefficients) -> tuple[Tensor, Tensor]:
        """M and m_k' = ((log sqrt(1 - eta))' + rho' + (log d_k)') m_k."""
        eigenvalues = self.linear.eigenvalues.to(at.log_keep, non_blocking=True)
        energies = eigenvalues * u0.to(at.log_keep.dtype).square()
        axes = tuple(range(1, u0.ndim))
        # Relative to the mode that fades least of those an image has, so that no blur underflows.
        least = torch.where(energies > 0, at.log_fading.expand_as(energies), -torch.inf).amax(axes, keepdim=True)
        least = torch.where(least > -torch.inf, least, 0.0)
        # A mode that the image lacks may fade less; it has weight 0.
        faded = energies * torch.exp(2 * (at.log_fading - least).clamp(max=0))
        total, left = (torch.where(x > 0, x, 1.0) for x in (energies.sum(axes, True), faded.sum(axes, True)))
        renormalised = eigenvalues > 0
        rho = torch.where(renormalised, 0.5 * (total.log() - left.log()) - least, 0.0)
        rho_rate = torch.where(renormalised, -(faded / left * at.log_fading_rate).sum(axes, True), 0.0)
        # Where an image lacks a mode, e^rho may overflow, and 0 times that is to be 0.
        m = torch.where(u0 == 0, 0.0, at.log_keep + at.log_fading + rho).exp() * u0
        return m, (at.log_keep_rate + rho_rate + at.log_fading_rate) * m


def _coefficients(linear: RenormalizedHeat, times: Tensor) -> _Coefficients:
    """At times (n,)."""

    def logarithms(t: Tensor) -> Tensor:
        keep = 0.5 * logsigmoid(-linear.noise_odds(t))
        return torch.stack(torch.broadcast_tensors(keep, linear.log_fading(t), linear.log_sigma(t)))

    values, slopes = derivative(logarithms, times.reshape(-1, *[1] * len(linear.shape)))
    return _Coefficients(*values, *slopes)


@lru_cache(maxsize=64)
def _at_one_time(linear: RenormalizedHeat, t: float) -> _Coefficients:
    """At one time: a step of a sampler needs the same several times."""
    return _coefficients(linear, torch.tensor([t], dtype=torch.float64))
