"""Processes of the heat equation: every cosine mode of an image fades at its own rate, lambda_k."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.dissipation import Dissipation, log_fading, sine_blur
from unidiff.process.sde import CosineVP

__all__ = ["Blurring", "Heat", "RenormalizedHeat"]

Spectrum = Literal["white", "gradient", "data"]


@dataclass(frozen=True)
class RenormalizedHeat(Dissipation):
    """The renormalised heat equation, its constraint kept in the mean: E|grad u_t|^2 = R at every time.

    Higham, Higham & Grindrod, eq. 20-21, with noise, and with the rescaling r(t) common to all images. With S_k the
    mean square of mode k of the data, R = sum_k lambda_k S_k and w_k = lambda_k S_k / R,

        alpha_k = sqrt(1 - eta) e^rho d_k,   sigma_k = sqrt(eta) s_k,   rho = -1/2 log sum_k w_k d_k^2,

    and sum_k lambda_k s_k^2 = R: the share 1 - eta of the gradient energy is image, the share eta noise. logit eta =
    2 rho - l(t), with l the log SNR of the `base` process, gives log SNR_k = l + 2 log d_k - 2 log s_k: it falls in
    every mode, for any blur. The mean of an image (k = 0) has no gradient; it fades by sqrt(1 - eta) alone. With white
    noise the process is Blurring multiplied by a function of time. Without blur and with s = 1 it is `base`.

    Where the heat equation has erased a mode noise cannot be converted to data: without a floor Eps, Score and Velocity
    are refused; X0 and V are well posed.

    Args:
        shape: Numbers of pixels along the last axes, (H, W).
        blur_max: Blur at t = 1, in pixels; at least 0.
        floor: What is left of a mode, of 1, under any blur; in [0, 1).
        noise: Spectrum s_k^2 of the noise: "white" is the same in all modes, "gradient" proportional to 1 / lambda_k,
            so that its gradient is white, "data" proportional to S_k.
        base: The process whose log SNR falls as that of the modes without blur.
    """

    floor: float = 0.0
    noise: Spectrum = "white"
    base: Process = field(default_factory=lambda: CosineVP(-10.0, 12.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.floor < 1, "floor", self.floor, "a number of at least 0 and below 1")
        require(self.noise in ("white", "gradient", "data"), "noise", self.noise, '"white", "gradient" or "data"')
        require(not self.base.basis.shape, "base", self.base, "a process with one SNR for all modes")

    @property
    def t_min(self) -> float:
        """That of the base."""
        return self.base.t_min

    @cached_property
    def energy(self) -> float:
        """R = sum_k lambda_k S_k, the mean gradient energy of one channel of the data."""
        return float((self.eigenvalues * self.power()).sum())

    @cached_property
    def _log_shares(self) -> Tensor:
        """Log w_k: (*shape); -inf for the constant mode."""
        return (self.eigenvalues * self.power() / self.energy).log()

    @cached_property
    def _log_noise(self) -> Tensor:
        """Log s_k: (*shape). The constant mode, which has no gradient, gets as much as the lowest other."""
        lowest = self.eigenvalues[self.eigenvalues > 0].min()
        shape = {"white": torch.ones_like(self.eigenvalues), "gradient": 1 / self.eigenvalues.clamp(min=lowest)}
        spectrum = self.power() if self.noise == "data" else shape[self.noise]
        spectrum = spectrum.clamp(min=1e-12 * float(spectrum.max()))  # a mode no data have still needs noise
        return 0.5 * (spectrum * (self.energy / (self.eigenvalues * spectrum).sum())).log()

    def blur(self, t: Tensor) -> Tensor:
        """blur_max sin^2(pi t / 2), in pixels."""
        return sine_blur(t, self.blur_max)

    def _log_fading(self, t: Tensor) -> Tensor:
        return log_fading(self.eigenvalues, self.dissipation(t), self.floor)

    def growth(self, t: Tensor) -> Tensor:
        """rho(t), the logarithm of what the rescaling has made up for, at times (*t, 1, ..., 1): of that shape."""
        axes = tuple(range(-len(self.shape), 0))
        return -0.5 * torch.logsumexp(self._log_shares + 2 * self._log_fading(t), axes, keepdim=True)

    def noise_odds(self, t: Tensor) -> Tensor:
        """Logit eta, the log odds of noise in the gradient energy, at times (*t, 1, ..., 1): of that shape."""
        return 2 * self.growth(t) - self.base.log_snr(t)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data, (*t, *shape)."""
        renormalised = (self.eigenvalues > 0).to(torch.float64)
        return 0.5 * logsigmoid(-self.noise_odds(t)) + renormalised * self.growth(t) + self._log_fading(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise, (*t, *shape)."""
        return 0.5 * logsigmoid(self.noise_odds(t)) + self._log_noise


@dataclass(frozen=True)
class Blurring(Dissipation):
    """Blurring diffusion (Hoogeboom & Salimans 2023): alpha_k = a(t) d_k(t) and sigma(t), with a and sigma of `base`.

    d_k = floor + (1 - floor) exp(-lambda_k tau), tau = (blur_max sin^2(pi t / 2))^2 / 2 (section 4).

    Args:
        shape: Numbers of pixels along the last axes, (H, W).
        blur_max: Blur at t = 1, in pixels; at least 0.
        floor: The paper's d_min; in [0, 1). Without it Eps, Score and Velocity are refused.
        base: The process without the blur.
    """

    floor: float = 0.001
    base: Process = field(default_factory=lambda: CosineVP(-10.0, 10.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.floor < 1, "floor", self.floor, "a number of at least 0 and below 1")
        require(not self.base.basis.shape, "base", self.base, "a process with one SNR for all modes")

    @property
    def t_min(self) -> float:
        """That of the base."""
        return self.base.t_min

    def blur(self, t: Tensor) -> Tensor:
        """blur_max sin^2(pi t / 2), in pixels."""
        return sine_blur(t, self.blur_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data, (*t, *shape)."""
        return self.base.log_alpha(t) + log_fading(self.eigenvalues, self.dissipation(t), self.floor)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise, (*t, *shape): that of the base in every mode."""
        return self.base.log_sigma(t) + torch.zeros_like(self.eigenvalues)


@dataclass(frozen=True)
class Heat(Dissipation):
    """Inverse heat dissipation: alpha_k = exp(-lambda_k tau(t)), and noise of one small scale at all times.

    Rissanen et al. 2023, eq. 7 and section 3.1. The blur grows geometrically, from blur_min at t = 1 / L to blur_max at
    t = 1. What is left of an image at t = 1 are its lowest modes, so the prior depends on the data: a training image,
    blurred, with noise (their section 3.2). `fit` keeps up to 10,000 of these images, in the modes that are left of
    them. Before that, and where noise is to be mapped to a state, the prior is the Gaussian of the same power.

    The paper's sampler adds noise of another scale, 1.25 sigma, at each step. Here the samplers are those of any
    Gaussian process. Eps, Score and Velocity are refused where a mode is erased, as for RenormalizedHeat.

    Args:
        shape: Numbers of pixels along the last axes, (H, W).
        blur_max: Blur at t = 1, in pixels, above blur_min.
        blur_min: Blur at the first level, in pixels, above 0.
        noise_scale: Standard deviation of the noise, above 0; the paper's 0.01 is for pixels in [0, 1].
        levels: L, at least 2.
    """

    blur_min: float = 0.5
    noise_scale: float = 0.02
    levels: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.blur_min < math.inf, "blur_min", self.blur_min, "a number above 0, in pixels")
        require(self.blur_min < self.blur_max, "blur_max", self.blur_max, f"a number above blur_min ({self.blur_min})")
        require(0 < self.noise_scale < math.inf, "noise_scale", self.noise_scale, "a number above 0")
        require_whole("levels", self.levels, 2, 1_000_000)

    @property
    def t_min(self) -> float:
        """The first level, 1 / L."""
        return 1 / self.levels

    def native_times(self) -> Tensor:
        """The levels, i / L for i = 1, ..., L."""
        return torch.arange(1, self.levels + 1, dtype=torch.float64) / self.levels

    def blur(self, t: Tensor) -> Tensor:
        """blur_min (blur_max / blur_min)^((L t - 1) / (L - 1)), in pixels."""
        fraction = (t.to(torch.float64) * self.levels - 1) / (self.levels - 1)
        return self.blur_min * torch.exp(fraction * math.log(self.blur_max / self.blur_min))

    def log_alpha(self, t: Tensor) -> Tensor:
        """Log scale of the data, (*t, *shape)."""
        return log_fading(self.eigenvalues, self.dissipation(t), 0.0)

    def log_sigma(self, t: Tensor) -> Tensor:
        """Log scale of the noise, (*t, *shape): the same at all times."""
        return torch.full_like(t.to(torch.float64) + self.eigenvalues, math.log(self.noise_scale))

    @cached_property
    def _left(self) -> Tensor:
        """Which modes of size 1 are more than a thousandth of the noise at t = 1: (*shape), bool."""
        return self.log_alpha(torch.ones(())).exp() > 1e-3 * self.noise_scale

    def fit(self, batches: Iterable[Tensor]) -> Process:
        """The process with the power of each mode, and with images at t = 1: one pass over (B, ..., *shape)."""
        kept: list[Tensor] = []
        fading = self.log_alpha(torch.ones(())).exp()

        def watched() -> Iterator[Tensor]:
            for batch in batches:
                yield batch
                if (missing := 10_000 - sum(map(len, kept))) > 0:
                    modes = fading * self.basis.forward(batch[:missing].to(torch.float64)).cpu()
                    kept.append(modes[..., self._left].float())

        fitted = super().fit(watched())
        return fitted.with_measured({**fitted.measured(), "images": torch.cat(kept)})

    def _images(self, like: Tensor) -> Tensor:
        """The means of the prior, (N, *like.shape[1:])."""
        images = self.measured()["images"]
        means = torch.zeros(len(images), *like.shape[1:], dtype=torch.float64)
        means[..., self._left] = images.double()
        return means.to(like)

    def draw_prior(self, noise: Noise, like: Tensor) -> Tensor:
        """A blurred image at random, and noise on it; see `Process.draw_prior`."""
        z = noise(like)
        if "images" not in self.measured():
            return self.prior(z)
        images = self._images(like)
        # The image is chosen by a number of another draw: a uniform one is the normal distribution of a normal one.
        uniform = torch.special.ndtr(noise(like).flatten(1)[:, 0].double())
        chosen = images[(uniform * len(images)).long().clamp(max=len(images) - 1)]
        return chosen + self.noise_scale * z

    def prior_scale(self) -> Tensor:
        """Standard deviation of the state at t = 1, sqrt(alpha^2 S + sigma^2): (*shape)."""
        faded = torch.exp(2 * self.log_alpha(torch.ones(()))) * self.power()
        return (faded + self.noise_scale**2).sqrt()

    def prior_log_density(self, u: Tensor) -> Tensor:
        """Log density at u, (B, *modes), in nats: of the mixture over the images, or of the Gaussian: (B,)."""
        if "images" not in self.measured():
            return super().prior_log_density(u)
        images, flat = self._images(u).flatten(1), u.flatten(1)
        distance = torch.cdist(flat.double(), images.double()) ** 2
        log_kernel = -distance / (2 * self.noise_scale**2)
        constant = flat.shape[1] * math.log(self.noise_scale * math.sqrt(2 * math.pi)) + math.log(len(images))
        return (log_kernel.logsumexp(1) - constant).to(u.dtype)
