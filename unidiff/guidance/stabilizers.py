"""What keeps strong guidance from spoiling samples: an interval of time, a rescaled contrast, clipped data."""

from __future__ import annotations

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.guidance.base import Guided, replace_x0
from unidiff.parameterization import Prediction
from unidiff.process.level import Level

__all__ = ["DynamicThreshold", "GuidanceInterval", "RescaledGuidance"]


def _guided(model: Guided) -> Guided:
    """The model, if it is guided: only then is there an unguided prediction beside it."""
    if not hasattr(model, "both"):
        name = type(model).__name__
        raise ParameterError("guided", f"{name} is not guided; wrap it in ClassifierFree or another guidance")
    return model


class GuidanceInterval(Guided):
    """Guidance in an interval of time only; the plain model, at its lower cost, elsewhere (Kynkaanniemi et al. 2024).

    Args:
        guided: The guided model.
        low: Guidance is on for low <= t <= high. Their interval of noise levels sigma is, on any process,
            `process.time_at(-2 * log(sigma))`.
        high: At most 1.

    Raises:
        ParameterError: If this is not an interval in [0, 1].
    """

    def __init__(self, guided: Guided, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(_guided(guided).model)
        self._copy_interface(guided)
        require(0 <= low <= 1, "low", low, "a time from 0 to 1")
        require(low <= high <= 1, "high", high, f"a time from low = {low:g} to 1")
        self.guided = guided
        self.low, self.high = low, high

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The plain prediction alone."""
        return self.guided.unguided(u, level, **cond)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """The plain prediction, and the guided one inside the interval; see `Guided.both`."""
        if isinstance(level.time, Tensor):
            inside = (level.time >= self.low) & (level.time <= self.high)
            plain, guided = self.guided.both(u, level, **cond)
            x0, eps = (torch.where(inside, a, b) for a, b in ((guided.x0, plain.x0), (guided.eps, plain.eps)))
            return plain, Prediction(x0, eps, level, plain.variance_interpolation)
        if self.low <= level.time <= self.high:
            return self.guided.both(u, level, **cond)
        plain = self.unguided(u, level, **cond)
        return plain, plain


class RescaledGuidance(Guided):
    """Guidance with the contrast of the plain prediction (Lin et al. 2024, section 3.4).

    x0 = share (std(plain x0) / std(guided x0)) guided x0 + (1 - share) guided x0, the standard deviations over all
    pixels of a sample. Theirs is on what the network predicts; x0 is what all networks have in common, and where their
    concern lies: over-exposed images.

    Args:
        guided: The guided model.
        share: Their phi, from 0 (no change) to 1.

    Raises:
        ParameterError: If the share is out of range.
    """

    def __init__(self, guided: Guided, share: float = 0.7) -> None:
        super().__init__(_guided(guided).model)
        self._copy_interface(guided)
        require(0 <= share <= 1, "share", share, "a number from 0 to 1")
        self.guided = guided
        self.share = share

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The plain prediction alone."""
        return self.guided.unguided(u, level, **cond)

    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """The plain prediction and the rescaled one; see `Guided.both`."""
        plain, guided = self.guided.both(u, level, **cond)
        if guided is plain:
            return plain, plain
        wanted, found = (self._contrast(prediction.x0) for prediction in (plain, guided))
        factor = torch.where(found > 0, wanted / found, 1.0)
        return plain, replace_x0(guided, (self.share * factor + (1 - self.share)) * guided.x0)

    def _contrast(self, x0: Tensor) -> Tensor:
        """Standard deviation over the pixels of each sample, (B, 1, ..., 1)."""
        pixels = self.process.basis.inverse(x0).flatten(1)
        return pixels.std(1, correction=0).reshape(-1, *[1] * (x0.ndim - 1))


class DynamicThreshold(Denoiser):
    """Expected data clipped at a quantile of their own size and brought back to [-1, 1].

    Dynamic thresholding (Saharia et al. 2022, section 2.3). For each sample s = max(limit, quantile of |x0|) over its
    pixels; x0 becomes clip(x0, -s, s) limit / s. A sample that is inside [-limit, limit] is left alone.

    Args:
        model: Any model, guided or not.
        quantile: Share of the pixels that are not clipped, above 0; the paper's 0.995.
        limit: Largest size of a pixel of the data, above 0.

    Raises:
        ParameterError: If a number is out of range.
    """

    def __init__(self, model: Denoiser, quantile: float = 0.995, limit: float = 1.0) -> None:
        super().__init__()
        require(0 < quantile <= 1, "quantile", quantile, "a number above 0, at most 1")
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
