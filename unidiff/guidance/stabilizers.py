"""Remedies for the artefacts of strong guidance: an interval of time, a rescaled contrast, clipped data."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.guidance.base import Guided, replace_x0
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["DynamicThreshold", "GuidanceInterval", "RescaledGuidance"]


class _Modified(Guided):
    """Guidance of which the guided prediction is modified."""

    def __init__(self, guided: Guided) -> None:
        if not hasattr(guided, "both"):  # otherwise it has no unguided prediction
            name = type(guided).__name__
            raise ParameterError("guided", f"{name} is not guided; wrap it in ClassifierFree or another guidance")
        super().__init__(guided.model)
        self._copy_interface(guided)
        self.guided = guided

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """See `Guided.unguided`."""
        return self.guided.unguided(u, level, **cond)


class GuidanceInterval(_Modified):
    """Guidance in an interval of time; the unguided model, at its lower cost, elsewhere (Kynkaanniemi et al. 2024).

    Args:
        guided: The guided model.
        low: Guidance is on for low <= t <= high. Their interval of noise levels sigma is, on any process,
            `process.time_at(-2 * log(sigma))`.
        high: At most 1.
    """

    def __init__(self, guided: Guided, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(guided)
        require(0 <= low <= 1, "low", low, "a time from 0 to 1")
        require(low <= high <= 1, "high", high, f"a time from low = {low:g} to 1")
        self.low, self.high = low, high

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`; outside the interval both are the unguided prediction."""
        if isinstance(level.time, Tensor):
            inside = (level.time >= self.low) & (level.time <= self.high)
            plain, guided = self.guided.both(u, level, **cond)
            x0, eps = (torch.where(inside, a, b) for a, b in ((guided.x0, plain.x0), (guided.eps, plain.eps)))
            return plain, Prediction(x0, eps, level, plain.variance_interpolation)
        if self.low <= level.time <= self.high:
            return self.guided.both(u, level, **cond)
        plain = self.unguided(u, level, **cond)
        return plain, plain


class RescaledGuidance(_Modified):
    """Guidance with the contrast of the unguided prediction (Lin et al. 2024, section 3.4).

    x0 = share (std(unguided x0) / std(guided x0)) guided x0 + (1 - share) guided x0, the standard deviations over all
    pixels of a sample. Theirs is on what the network predicts; x0 is what all networks have in common, and where
    over-exposed images, their concern, arise.

    Args:
        guided: The guided model.
        share: Their phi, from 0 (no change) to 1.
    """

    def __init__(self, guided: Guided, share: float = 0.7) -> None:
        super().__init__(guided)
        require(0 <= share <= 1, "share", share, "a number from 0 to 1")
        self.share = share

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """See `Guided.both`."""
        plain, guided = self.guided.both(u, level, **cond)
        if guided is plain:
            return plain, plain
        contrast, increased = (self._contrast(prediction.x0) for prediction in (plain, guided))
        factor = torch.where(increased > 0, contrast / increased, 1.0)
        return plain, replace_x0(guided, (self.share * factor + (1 - self.share)) * guided.x0)

    def _contrast(self, x0: Tensor) -> Tensor:
        """Standard deviation over the pixels of each sample, (B, 1, ..., 1)."""
        pixels = self.process.basis.inverse(x0).flatten(1)
        return pixels.std(1, correction=0).reshape(-1, *[1] * (x0.ndim - 1))


class DynamicThreshold(Denoiser):
    """Expected data clipped at a quantile of their own magnitude and scaled back to [-limit, limit].

    Dynamic thresholding (Saharia et al. 2022, section 2.3). For each sample s = max(limit, quantile of |x0|) over its
    pixels; x0 becomes clip(x0, -s, s) limit / s. A sample that is inside [-limit, limit] is unchanged.

    Args:
        model: Any model, guided or not.
        quantile: Share of the pixels that are not clipped, above 0; the paper's 0.995.
        limit: Largest magnitude of a pixel of the data, above 0.
    """

    def __init__(self, model: Denoiser, quantile: float = 0.995, limit: float = 1.0) -> None:
        super().__init__()
        require(0 < quantile <= 1, "quantile", quantile, "a number in (0, 1]")
        require(0 < limit < float("inf"), "limit", limit, "a number > 0")
        self.model = model
        self._copy_interface(model)
        self.quantile, self.limit = quantile, limit

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The model's prediction with its data clipped; see `Denoiser.forward`."""
        prediction: Prediction = self.model(u, level, **cond)
        pixels = self.process.basis.inverse(prediction.x0)
        size = pixels.abs().flatten(1).quantile(self.quantile, dim=1).clamp(min=self.limit)
        size = size.reshape(-1, *[1] * (pixels.ndim - 1))
        inside = (pixels.abs() <= self.limit).flatten(1).all(1).reshape(size.shape)
        clipped = torch.where(inside, pixels, pixels.clamp(-size, size) * (self.limit / size))
        return replace_x0(prediction, torch.where(inside, prediction.x0, self.process.basis.forward(clipped)))
