"""The decoder of a reverse chain: the Gaussian of the data around the prediction at the last noisy time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unidiff.process.level import Level, Scale, fresh_noise_fraction

__all__ = ["bin_width", "decoder_log_scale", "decoder_nll"]


def bin_width(levels: int) -> float:
    """Distance 2 / (levels - 1) between neighbouring values, for `levels` of them from -1 to 1."""
    return 2 / (levels - 1)


def decoder_log_scale(first: Level, second: Level, variance: Scale) -> Scale:
    """Log of the decoder's standard deviation, from the two levels of least noise of a chain.

    Args:
        first: The level that is decoded, t_1.
        second: The level above it, t_2.
        variance: Where the variance lies on a logarithmic scale from that of the step from t_2 to t_1, beta-tilde_2 of
            DDPM (0), to sigma(t_1)^2, its beta_1 (1). Ho et al. 2020 and Nichol & Dhariwal 2021 write beta-tilde_1,
            which is 0, and take beta-tilde_2 in their programs.
    """
    fresh = fresh_noise_fraction(second, first)
    if isinstance(fresh, Tensor):
        return torch.as_tensor(first.sigma).log() + 0.5 * (1 - variance) * fresh.log()
    return math.log(first.sigma) + 0.5 * (1 - variance) * math.log(fresh)


def decoder_nll(x: Tensor, residual: Tensor, log_scale: Scale, levels: int | None) -> Tensor:
    """-log p of each value of x, in nats and in its shape, for Gaussians around x - residual.

    Args:
        x: Data in pixels.
        residual: Data minus prediction.
        log_scale: Log of the standard deviation.
        levels: Number of equally spaced values from -1 to 1 that the data can take: the density is integrated over the
            bin around each, the outermost bins extending to infinity (Ho et al. 2020, eq. 13). None for the density.
    """
    scale = log_scale.exp() if isinstance(log_scale, Tensor) else math.exp(log_scale)
    if levels is None:
        return 0.5 * (residual / scale).square() + log_scale + 0.5 * math.log(2 * math.pi)
    half = bin_width(levels) / 2
    low, high = (residual - half) / scale, (residual + half) / scale
    # Phi(high) - Phi(low) = Phi(-low) - Phi(-high): on the side where both are small, nothing cancels.
    flip = low + high > 0
    below = torch.special.log_ndtr(torch.where(flip, -high, low))
    above = torch.special.log_ndtr(torch.where(flip, -low, high))
    inner = above + torch.log(-torch.expm1(below - above))
    outer = torch.special.log_ndtr(torch.where(x > 0, -low, high))  # of bins that extend to infinity
    return -torch.where(x.abs() > 1 - half, outer, inner)
