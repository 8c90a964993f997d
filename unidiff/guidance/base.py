"""What guided models share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.condition.check import check_required
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.parameterization import Prediction
from unidiff.process.level import Level, Scale, axpby

__all__ = ["Guided", "check_scale", "extrapolate", "repeat_level", "replace_x0", "row_scale", "slice_level"]

_MOST = 1e6  # a scale beyond which float32 would lose the unguided prediction


class Guided(Denoiser):
    """A model with guidance.

    Args:
        model: The model that is guided.
    """

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self._copy_interface(model)
        self.model = model

    @abstractmethod
    def both(self, u: Tensor, level: Level, **cond: Tensor) -> tuple[Prediction, Prediction]:
        """The unguided prediction of `model` and the guided one, in as few evaluations as both need."""

    def unguided(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The unguided prediction alone."""
        prediction: Prediction = self.model(u, level, **cond)
        return prediction

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """The guided prediction; see `Denoiser.forward`. The condition that guides it is required."""
        check_required(cond, self)
        return self.both(u, level, **cond)[1]


def check_scale(scale: float | Tensor | Sequence[float]) -> float | Tensor:
    """A guidance scale: one number of magnitude up to 1e6, or a float64 tensor (B,) of one for each sample.

    Raises:
        ParameterError: If it is neither.
    """
    value = scale.tolist() if isinstance(scale, Tensor) else scale
    numbers = value if isinstance(value, (list, tuple)) else [value]
    valid = bool(numbers) and all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) <= _MOST for number in numbers
    )
    require(valid, "scale", value, f"a number of magnitude up to {_MOST:g}, or one for each sample, (B,)")
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return scale if scale.ndim else float(scale)


def row_scale(scale: float | Tensor, u: Tensor) -> float | Tensor:
    """The scale broadcast to a state u, (B, *modes): a number, or (B, 1, ..., 1)."""
    if not isinstance(scale, Tensor):
        return scale
    if len(scale) != len(u):
        remedy = "pass one for each, or one number inside a model that works in chunks or doubles a batch"
        raise ParameterError("scale", f"got {len(scale)} scales for {len(u)} samples; {remedy}.")
    return scale.to(u.device, u.dtype, non_blocking=True).reshape(-1, *[1] * (u.ndim - 1))


def extrapolate(scale: Scale, there: Prediction, here: Prediction) -> Prediction:
    """The point here + scale (there - here) on the line through two predictions of one state.

    The weights sum to 1, so alpha x0 + sigma eps is still the state, and whatever is linear in (x0, eps), such as score
    and v, lies on the same line: guidance does not depend on what a network predicts. A learned variance is that of
    `there`: it is not a mean, and the line would lead out of its range.
    """
    x0, eps = (axpby(scale, a, 1 - scale, b) for a, b in ((there.x0, here.x0), (there.eps, here.eps)))
    return Prediction(x0, eps, there.level, there.variance_interpolation)


def replace_x0(prediction: Prediction, x0: Tensor) -> Prediction:
    """The prediction with other expected data, and the noise that explains the state with them.

    By the difference: unchanged data leave the noise unchanged, bit for bit, at any noise level.
    """
    level = prediction.level
    eps = prediction.eps + level.alpha / level.sigma * (prediction.x0 - x0)
    return Prediction(x0, eps, level, prediction.variance_interpolation)


def repeat_level(level: Level) -> Level:
    """The level of a batch stacked on itself."""
    return level.map(lambda value: torch.cat([value, value])) if isinstance(level.time, Tensor) else level


def slice_level(level: Level, rows: slice) -> Level:
    """The level of some rows of a batch."""
    return level.map(lambda value: value[rows]) if isinstance(level.time, Tensor) else level
