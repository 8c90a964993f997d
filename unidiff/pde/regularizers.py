"""Regularized inverses of the heat equation from noisy modes.

The mode k that is observed at time T is v_k = g_k a_k + delta xi_k with g_k = e^(rho - lambda_k T), and rho common to
all modes. Dividing by g_k multiplies the noise by up to e^(lambda_k T); a mollifier multiplies by less.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.errors import require, require_shape, require_whole
from unidiff.noise import Seeded
from unidiff.renamed import renamed_attribute

__all__ = [
    "Mollifier",
    "Observation",
    "Posterior",
    "PosteriorMean",
    "PosteriorSample",
    "SpectralCutoff",
    "Tikhonov",
    "TruncatedInverse",
    "Wiener",
    "posterior",
]


class Observation(NamedTuple):
    """The data of the inverse problem.

    Attributes:
        modes: v_k, (..., K), float64.
        eigenvalues: lambda_k > 0, (K,), ascending.
        time: T >= 0.
        energy: R, the gradient energy that the flow conserves.
        deviation: delta, the standard deviation of the noise in each mode.
    """

    modes: Tensor
    eigenvalues: Tensor
    time: float
    energy: float
    deviation: float


class Mollifier(PlainArguments, ABC):
    """A way to estimate the modes at time 0."""

    @abstractmethod
    def start(self, observed: Observation) -> Tensor:
        """The estimate of a_k, (..., K)."""


@dataclass(frozen=True)
class TruncatedInverse(Mollifier):
    """The flow itself, backwards, on the lowest modes: a_k ~ v_k e^(lambda_k T), rescaled to R.

    On n modes it exists for all times and its result has the norm of the true field, so the relative error is at most
    2; where noise dominates, the result is the highest mode alone and the error is sqrt(2). The number of modes is the
    only regularisation: with as many as are resolvable it is a good mollifier, with more it fails.

    Args:
        modes: n, the number of modes to use; None for all.
    """

    modes: int | None = None

    def __post_init__(self) -> None:
        if self.modes is not None:
            require_whole("modes", self.modes)

    def start(self, observed: Observation) -> Tensor:
        v = observed.modes.clone()
        v[..., self.modes or v.shape[-1] :] = 0
        return _rescaled(observed, v, observed.eigenvalues * observed.time)


@dataclass(frozen=True)
class SpectralCutoff(Mollifier):
    """The naive inverse on the modes before the first run below a multiple of the noise deviation; rescaled to R.

    As e^(-lambda_k T) falls steeply, few modes are partially resolved, and the error is within a tenth of that of the
    Wiener filter, which uses the spectrum. Modes between 1 and `sigmas` deviations are discarded: about
    L^2 log(sigmas) / (2 pi^2 K T) of K on an interval. For short times they are many, and the filter is then better.

    Args:
        sigmas: Number of noise deviations above which a mode counts as resolved.
        run: Number of consecutive unresolved modes that end the band. With 1, a single small coefficient ends it; and a
            field with a symmetry lacks every other mode on an interval, and more in several dimensions.
    """

    sigmas: float = 3.0
    run: int = 2

    def __post_init__(self) -> None:
        require(0 < self.sigmas < math.inf, "sigmas", self.sigmas, "a number > 0")
        require_whole("run", self.run)

    kept = renamed_attribute("kept", "resolved_modes")

    def resolved_modes(self, observed: Observation) -> Tensor:
        """Which modes are used: (..., K), booleans; the lowest always is."""
        unresolved = observed.modes.abs() < self.sigmas * observed.deviation
        padded = torch.nn.functional.pad(unresolved, (0, self.run - 1), value=True)
        resolved = padded.unfold(-1, self.run, 1).all(-1).cumsum(-1) == 0
        resolved[..., 0] = True
        return resolved

    def start(self, observed: Observation) -> Tensor:
        v = torch.where(self.resolved_modes(observed), observed.modes, 0.0)
        return _rescaled(observed, v, observed.eigenvalues * observed.time)


@dataclass(frozen=True)
class Tikhonov(Mollifier):
    """The minimiser of |g a - v|^2 + mu |grad a|^2, rescaled to R; mu by the discrepancy principle.

    a_k = g_k v_k / (g_k^2 + mu lambda_k) with mu such that |g a - v|^2 = K delta^2 (Morozov). The unknown rho only
    rescales a and mu. Where the norm of the data does not exceed that of their noise, mu is practically infinite.
    """

    def penalty(self, observed: Observation) -> Tensor:
        """The log of mu (with rho = 0), (...): the residual grows with mu, and is bisected."""
        require(observed.deviation > 0, "deviation", observed.deviation, "a number > 0 for Tikhonov")
        offset = _log_ratio(observed)
        low = torch.full_like(observed.modes[..., 0], -60 - float(offset.max()))
        high = torch.full_like(low, 60 - float(offset.min()))
        target = len(offset) * observed.deviation**2
        for _ in range(80):
            middle = (low + high) / 2
            residual = (observed.modes * torch.sigmoid(middle[..., None] + offset)).square().sum(-1)
            low, high = torch.where(residual < target, middle, low), torch.where(residual < target, high, middle)
        return (low + high) / 2

    def start(self, observed: Observation) -> Tensor:
        size = self.penalty(observed)[..., None] + _log_ratio(observed)  # log of mu lambda / g^2
        gain = observed.eigenvalues * observed.time - torch.nn.functional.softplus(size)  # no overflow at any T
        return _rescaled(observed, observed.modes, gain)


def _log_ratio(observed: Observation) -> Tensor:
    """The log of lambda / g^2: (K,)."""
    return observed.eigenvalues.log() + 2 * observed.eigenvalues * observed.time


class Posterior(NamedTuple):
    """Independent Gaussian modes, with the means and the variances of a_k, (..., K)."""

    mean: Tensor
    variance: Tensor


@plain_arguments
def posterior(v: Tensor, gain: Tensor, variance: Tensor | float, spectrum: Tensor) -> Posterior:
    """The posterior of a_k ~ N(0, S_k) given v_k = g_k a_k + N(0, s_k^2).

    Mean g S v / (g^2 S + s^2), variance S s^2 / (g^2 S + s^2). The gain from v to the mean is at most
    sqrt(S_k) / (2 s_k), however small g_k is: this is the sense in which noise is the mollifier. With noise injected
    during the flow, g_k and s_k^2 are `alpha` and `variance` of `MeanFieldForcing.at`.

    Args:
        v: Observed modes, (..., K).
        gain: g_k, (..., K).
        variance: s_k^2 > 0, (K,) or one number.
        spectrum: S_k >= 0, (K,).
    """
    return _posterior(v, gain, variance, spectrum)


def _posterior(v: Tensor, gain: Tensor, variance: Tensor | float, spectrum: Tensor) -> Posterior:
    total = gain**2 * spectrum + variance
    return Posterior(gain * spectrum / total * v, spectrum * variance / total)


@dataclass(frozen=True, eq=False)
class _Bayesian(Mollifier):
    """Estimates with a Gaussian prior of mode variances E a_k^2 = S_k, with sum_k lambda_k S_k = R.

    Args:
        spectrum: S_k >= 0, (K,), in the order of `GradientModes`.
    """

    spectrum: Tensor

    def growth(self, observed: Observation) -> Tensor:
        """The log of g_1 = e^(rho - lambda_1 T), (...), which depends on the unknown field at time 0.

        It is determined by R: the expected gradient energy of the posterior, sum_k lambda_k (mean_k^2 + variance_k),
        must be R. It falls to 0 as g grows; the largest solution is taken, between the bounds of the flow,
        0 <= log g_1 <= (lambda_K - lambda_1) T, and the lower bound if there is none, as in very noisy data.
        The upper bound is cut at 30, a factor of 1e13: a weaker phi_1 could not be distinguished from rounding.
        """
        upper = min(float(observed.eigenvalues[-1] - observed.eigenvalues[0]) * observed.time, 30.0)
        low, high = torch.zeros_like(observed.modes[..., 0]), torch.full_like(observed.modes[..., 0], upper)
        for value in torch.linspace(0, upper, 100)[:-1].tolist():  # the last interval with an end above R
            above = self._energy(observed, low.new_full((), value)) >= observed.energy
            low = torch.where(above, value, low)
            high = torch.where(above, value + upper / 99, high)
        no_solution = self._energy(observed, low) < observed.energy
        for _ in range(50):
            middle = (low + high) / 2
            above = self._energy(observed, middle) >= observed.energy
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return torch.where(no_solution, 0.0, low)

    def posterior(self, observed: Observation) -> Posterior:
        """The posterior of the modes at time 0 for a Gaussian prior and the estimated `growth`."""
        require(observed.deviation > 0, "deviation", observed.deviation, "a number > 0 with a prior")
        require_shape("spectrum", "the variances", self.spectrum.shape, observed.eigenvalues.shape)
        smallest = float(self.spectrum.min())
        require(smallest >= 0 and bool(self.spectrum.isfinite().all()), "spectrum", smallest, "finite numbers >= 0")
        return self._posterior_at(observed, self.growth(observed))

    def _posterior_at(self, observed: Observation, growth: Tensor) -> Posterior:
        relative = (observed.eigenvalues - observed.eigenvalues[0]) * observed.time
        gain = torch.exp(growth[..., None] - relative)
        return _posterior(observed.modes, gain, observed.deviation**2, self.spectrum.to(observed.modes))

    def _energy(self, observed: Observation, growth: Tensor) -> Tensor:
        mean, variance = self._posterior_at(observed, growth)
        return (observed.eigenvalues * (mean**2 + variance)).sum(-1)


@dataclass(frozen=True, eq=False)
class Wiener(_Bayesian):
    """The posterior mean, rescaled to R."""

    def start(self, observed: Observation) -> Tensor:
        return _rescaled(observed, self.posterior(observed).mean, 0.0)


@dataclass(frozen=True, eq=False)
class PosteriorMean(_Bayesian):
    """The posterior mean, of minimal mean square error, and with less gradient energy than the true field."""

    def start(self, observed: Observation) -> Tensor:
        return self.posterior(observed).mean


@dataclass(frozen=True, eq=False)
class PosteriorSample(_Bayesian):
    """A sample of the posterior: the fine scales that the data do not determine are drawn from the prior.

    This is what the reverse process of a diffusion model does, and why it generates rather than inverts.

    Args:
        seeds: One seed for each field of the batch; one for a field without a batch.
    """

    seeds: Sequence[int] = (0,)

    def start(self, observed: Observation) -> Tensor:
        mean, variance = self.posterior(observed)
        fields = mean.reshape(-1, mean.shape[-1])
        require(len(self.seeds) == len(fields), "seeds", len(self.seeds), f"one for each of {len(fields)} fields")
        return mean + variance.sqrt() * Seeded(self.seeds)(fields).reshape(mean.shape)


def _rescaled(observed: Observation, v: Tensor, log_gain: Tensor | float) -> Tensor:
    """v_k e^(log gain), scaled to the gradient energy R; in logarithms, so that no gain overflows. 0 if v is."""
    size = v.abs().log() + observed.eigenvalues.log() / 2 + log_gain
    z = torch.exp(size - size.amax(-1, keepdim=True).clamp(min=-1e300))
    scale = math.sqrt(observed.energy) / z.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return torch.sign(v) * scale * z / observed.eigenvalues.sqrt()
