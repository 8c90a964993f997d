"""A pipeline with a refiner: another model of text near the data, with text encoders of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unidiff.condition.base import Condition, named
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.interop.diffusers.prompt import Prompt
from unidiff.parameterization import Prediction
from unidiff.process.level import Level
from unidiff.split import Split, check_time

__all__ = ["refined"]


def refined(model: Denoiser, refiner: Denoiser, share: float) -> Split:
    """A model of text with a refiner as one model, whose prompt is a text as the encoders of both see it.

    Args:
        model: The model near the noise.
        refiner: The model near the data, of the same process and samples.
        share: The share of noisy times that is the refiner's, from 0 to 1. On a table of T entries it has the entries
            below `share` T, as with `denoising_end` = `denoising_start` = 1 - share in diffusers.

    Raises:
        ParameterError: If the share is out of range, or process or shape of the two differ.
    """
    try:
        check_time(share)
    except ParameterError as error:
        raise ParameterError("refiner_from", error.problem) from error
    own: Any = named(model.conditions, "prompt")
    other: Any = named(refiner.conditions, "prompt")
    for name, condition in (("model", own), ("refiner", other)):
        if not hasattr(condition, "encode"):
            raise ParameterError(name, "it must be a model of text with the condition `prompt`")
    joint = _joint(own, other)
    conditions = (joint, *(each for each in model.conditions or () if each is not own))
    parts = _OfJoint(model, conditions, 0, own), _OfJoint(refiner, conditions, own.size, other)
    table = model.process.native_times()
    # Entry i of a table of T is the time (i + 1) / T: between two entries, so that no rounding decides.
    t = share if table is None else min(1.0, (round(share * len(table)) + 0.5) / len(table)) if share else 0.0
    return Split(*parts, t)


def _joint(own: Any, other: Any) -> Prompt:
    """The prompts of two models as one, the numbers of the first before those of the second."""

    def both(one: Tensor, two: Tensor) -> Tensor:
        return torch.cat([one, two.to(one)])

    return replace(
        own,
        size=own.size + other.size,
        encode=lambda text: both(own.encode(text), other.encode(text)),
        empty=both(own.empty, other.empty),
        encode_negative=lambda text: both(own.parse_negative(text), other.parse_negative(text)),
    )


class _OfJoint(Denoiser):
    """A model that takes its part of a joint prompt, and of the other conditions those that it has."""

    def __init__(self, model: Denoiser, conditions: Sequence[Condition], start: int, own: Any) -> None:
        super().__init__()
        self._copy_interface(model)
        self._names = {condition.name for condition in model.conditions or ()}
        self._part = slice(start, start + own.size)
        self.conditions = tuple(conditions)
        self.model = model

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """See `Denoiser.forward`."""
        own = {name: value for name, value in cond.items() if name in self._names}
        if "prompt" in own:
            own["prompt"] = own["prompt"][:, self._part]
        prediction: Prediction = self.model(u, level, **own)
        return prediction
