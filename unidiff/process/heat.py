"""Processes of the heat equation: every cosine mode of an image fades at its own rate, lambda_k."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unidiff.errors import require
from unidiff.noise_spectrum import NoiseSpectrum, WhiteNoise
from unidiff.process.base import Process
from unidiff.process.spectral import SpectralProcess
from unidiff.process.variance_preserving import CosineVP
from unidiff.renamed import class_of_string

__all__ = ["Blurring", "RenormalizedHeat"]


@dataclass(frozen=True)
class _BlurOnProcess(SpectralProcess):
    """A blur of blur_max sin^2(pi t / 2) pixels (Hoogeboom & Salimans 2023, section 4), on a process with one SNR.

    Args:
        floor: The smallest d_k, under any blur; in [0, 1).
        base: The process without the blur.
    """

    floor: float = 0.0
    base: Process = field(default_factory=lambda: CosineVP(-10.0, 12.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.floor < 1, "floor", self.floor, "a number in [0, 1)")
        require(not self.base.basis.shape, "base", self.base, "a process with one SNR for all modes")
        require(bool(self.base.level(1.0).alpha > 0), "base", self.base, "a process with alpha > 0 at t = 1")

    @property
    def t_min(self) -> float:
        return self.base.t_min

    def blur(self, t: Tensor) -> Tensor:
        return self.blur_max * torch.sin(t.to(torch.float64) * (math.pi / 2)) ** 2

    def log_fading(self, t: Tensor) -> Tensor:
        """Log d_k at t, d_k = floor + (1 - floor) exp(-lambda_k tau(t)): (*t, *shape)."""
        faded = super().log_fading(t)
        if self.floor == 0:
            return faded
        return torch.logaddexp(torch.full_like(faded, math.log(self.floor)), faded + math.log1p(-self.floor))


@dataclass(frozen=True)
class RenormalizedHeat(_BlurOnProcess):
    """The renormalised heat equation, its constraint kept in the mean: E|grad u_t|^2 = R at every time.

    Higham, Higham & Grindrod, eq. 20-21, with noise, and with the rescaling r(t) common to all images. With S_k the
    mean square of mode k of the data, R = sum_k lambda_k S_k and w_k = lambda_k S_k / R,

        alpha_k = sqrt(1 - eta) e^rho d_k,   sigma_k = sqrt(eta) s_k,   rho = -1/2 log sum_k w_k d_k^2,

    and sum_k lambda_k s_k^2 = R: the share 1 - eta of the gradient energy is image, the share eta noise. logit eta =
    2 rho - l(t), with l the log SNR of the `base` process, gives log SNR_k = l + 2 log d_k - 2 log s_k: it falls in
    every mode, for any blur. The mean of an image (k = 0) has no gradient; it fades by sqrt(1 - eta) alone. With white
    noise the process is Blurring multiplied by a function of time. Without blur and with s = 1 it is `base`.

    Where the heat equation has erased a mode for float32, noise cannot be converted to data: without a floor Eps and
    Score, and with much blur Velocity, are rejected. X0 and V are well posed.

    Args:
        base: The process whose log SNR falls as that of the modes without blur.
        noise: The spectrum s_k^2 of the noise, up to the factor.
    """

    noise: NoiseSpectrum = field(default_factory=WhiteNoise)

    def __post_init__(self) -> None:
        super().__post_init__()
        class_of_string(self, "noise", NoiseSpectrum)

    @cached_property
    def energy(self) -> float:
        """R = sum_k lambda_k S_k, the mean gradient energy of one channel of the data."""
        return float(self.mode_weights().sum())

    @cached_property
    def _log_shares(self) -> Tensor:
        """Log w_k: (*shape); -inf for the constant mode."""
        return (self.mode_weights() / self.energy).log()

    @cached_property
    def _log_noise(self) -> Tensor:
        """Log s_k: (*shape)."""
        spectrum = self.noise.variances(self.eigenvalues, self.power())
        spectrum = spectrum.clamp(min=1e-12 * float(spectrum.max()))  # modes without data need noise too
        return 0.5 * (spectrum * (self.energy / (self.eigenvalues * spectrum).sum())).log()

    def growth(self, t: Tensor) -> Tensor:
        """rho(t), the logarithm of the rescaling, at times (*t, 1, ..., 1): of that shape."""
        axes = tuple(range(-len(self.shape), 0))
        return -0.5 * torch.logsumexp(self._log_shares + 2 * self.log_fading(t), axes, keepdim=True)

    def noise_odds(self, t: Tensor) -> Tensor:
        """Logit eta, the log odds of noise in the gradient energy, at times (*t, 1, ..., 1): of that shape."""
        return 2 * self.growth(t) - self.base.log_snr(t)

    def log_alpha(self, t: Tensor) -> Tensor:
        renormalised = (self.eigenvalues > 0).to(torch.float64)
        return 0.5 * logsigmoid(-self.noise_odds(t)) + renormalised * self.growth(t) + self.log_fading(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * logsigmoid(self.noise_odds(t)) + self._log_noise


@dataclass(frozen=True)
class Blurring(_BlurOnProcess):
    """Blurring diffusion (Hoogeboom & Salimans 2023): alpha_k = a(t) d_k(t) and sigma(t), with a and sigma of `base`.

    d_k = floor + (1 - floor) exp(-lambda_k tau), tau = (blur_max sin^2(pi t / 2))^2 / 2 (section 4).

    Args:
        floor: The paper's d_min; in [0, 1). Without it Eps and Score are rejected, and with much blur Velocity.
    """

    floor: float = 0.001
    base: Process = field(default_factory=lambda: CosineVP(-10.0, 10.0))

    def log_alpha(self, t: Tensor) -> Tensor:
        return self.base.log_alpha(t) + self.log_fading(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return self.base.log_sigma(t) + torch.zeros_like(self.eigenvalues)
