"""Samples that are not finite: found once, when all are drawn, and reported in one sentence."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

from torch import Tensor

__all__ = ["not_finite", "warn_if_not_finite"]

# Files of the frames between the caller and the warning: ours, and that of decorators that are context managers.
_BETWEEN = (str(Path(__file__).parents[1]), contextlib.__file__)
_SHOWN = 5  # numbers of samples in a sentence


def not_finite(x: Tensor) -> str | None:
    """A sentence about the samples that hold NaN or infinity: how many, which, and what helps; None if all are finite.

    Args:
        x: Samples, (B, *shape), on any device; the host waits for it once.
    """
    finite = x.detach().isfinite().reshape(len(x), -1).all(1).tolist()
    broken = [number for number, good in enumerate(finite) if not good]
    if not broken:
        return None
    count = f"{len(broken)} of {len(finite)} samples are not finite"
    if len(broken) == len(finite):
        return f"{count}. Check the model: training may have diverged. Otherwise use more steps or less guidance."
    which = ", ".join([*map(str, broken[:_SHOWN]), *["..."] * (len(broken) > _SHOWN)])
    return f"{count} (number{'s' * (len(broken) > 1)} {which}). Use more steps or less guidance."


def warn_if_not_finite(x: Tensor) -> None:
    """Warn with `not_finite`, as from the line that called the library."""
    if (problem := not_finite(x)) is not None:
        frame, level = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_BETWEEN):
            frame, level = frame.f_back, level + 1
        warnings.warn(problem, stacklevel=level)
