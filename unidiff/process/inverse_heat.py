"""Inverse heat dissipation: blur alone, and little noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unidiff.errors import require, require_whole
from unidiff.noise import Noise
from unidiff.process.base import Process
from unidiff.process.spectral import SpectralProcess

__all__ = ["InverseHeat"]


@dataclass(frozen=True)
class InverseHeat(SpectralProcess):
    """Inverse heat dissipation: alpha_k = exp(-lambda_k tau(t)), and noise of one small scale at all times.

    Rissanen et al. 2023, eq. 7 and section 3.1. The blur grows geometrically, from blur_min at t = 1 / L to blur_max at
    t = 1. At t = 1 an image still has its lowest modes, so the prior depends on the data: a training image, blurred,
    with noise (their section 3.2). `fit` keeps up to 10,000 of these images, in their remaining modes. Before that,
    and where noise is to be mapped to a state, the prior is the Gaussian of the same power.

    The paper's sampler adds noise of another scale, 1.25 sigma, at each step. Here the samplers are those of any
    Gaussian process. Eps and Score are rejected where a mode is erased, Velocity as the mean of an image does not move.

    Args:
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
        require(0 < self.blur_min < math.inf, "blur_min", self.blur_min, "a number > 0, in pixels")
        require(self.blur_min < self.blur_max, "blur_max", self.blur_max, f"a number > blur_min ({self.blur_min})")
        require(0 < self.noise_scale < math.inf, "noise_scale", self.noise_scale, "a number > 0")
        require_whole("levels", self.levels, 2, 1_000_000)

    @property
    def t_min(self) -> float:
        return 1 / self.levels

    def native_times(self) -> Tensor:
        return torch.arange(1, self.levels + 1, dtype=torch.float64) / self.levels

    def blur(self, t: Tensor) -> Tensor:
        # blur_min (blur_max / blur_min)^((L t - 1) / (L - 1))
        fraction = (t.to(torch.float64) * self.levels - 1) / (self.levels - 1)
        return self.blur_min * torch.exp(fraction * math.log(self.blur_max / self.blur_min))

    def log_alpha(self, t: Tensor) -> Tensor:
        return self.log_fading(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.full_like(t.to(torch.float64) + self.eigenvalues, math.log(self.noise_scale))

    @cached_property
    def _remaining(self) -> Tensor:
        """Whether alpha at t = 1 is above a thousandth of the noise scale: (*shape), bool."""
        return self.log_alpha(torch.ones(())).exp() > 1e-3 * self.noise_scale

    def fit(self, batches: Iterable[Tensor]) -> Process:
        """The process with the power of each mode, and with images at t = 1: one pass over (B, ..., *shape)."""
        images: list[Tensor] = []
        fading = self.log_alpha(torch.ones(())).exp()

        def collected() -> Iterator[Tensor]:
            for batch in batches:
                yield batch
                if (missing := 10_000 - sum(map(len, images))) > 0:
                    modes = fading * self.basis.forward(batch[:missing].to(torch.float64)).cpu()
                    images.append(modes[..., self._remaining].float())

        fitted = super().fit(collected())
        return fitted.with_measured({**fitted.measured(), "images": torch.cat(images)})

    def start(self, noise: Noise, like: Tensor) -> Tensor:
        """Random blurred images with noise; see `Process.start`."""
        if "images" not in self.measured():
            return super().start(noise, like)
        z = noise(like)
        images = self.measured()["images"]
        # A second draw chooses the image: the normal distribution function maps normal numbers to uniform ones.
        uniform = torch.special.ndtr(noise(like).flatten(1)[:, 0].double())
        chosen = images[(uniform.cpu() * len(images)).long().clamp(max=len(images) - 1)]
        u = self.noise_scale * z
        u[..., self._remaining.to(u.device)] += chosen.to(u)
        return u

    def prior_scale(self) -> Tensor:
        """Standard deviation of the state at t = 1, sqrt(alpha^2 S + sigma^2): (*shape)."""
        faded = torch.exp(2 * self.log_alpha(torch.ones(()))) * self.power()
        return (faded + self.noise_scale**2).sqrt()

    def prior_log_density(self, u: Tensor) -> Tensor:
        """Log density at u, (B, *modes), in nats: of the mixture of the images, or of the Gaussian: (B,)."""
        if "images" not in self.measured():
            return super().prior_log_density(u)
        images, remaining = self.measured()["images"].double().flatten(1), self._remaining
        u = u.cpu().double()
        rest = u[..., ~remaining].square().flatten(1).sum(1, keepdim=True)
        distance = torch.cdist(u[..., remaining].flatten(1), images) ** 2 + rest
        log_kernel = -distance / (2 * self.noise_scale**2)
        constant = u[0].numel() * math.log(self.noise_scale * math.sqrt(2 * math.pi)) + math.log(len(images))
        return log_kernel.logsumexp(1) - constant
