"""The conditions of a call, checked against those of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff.condition.base import Condition, Named, named
from unidiff.errors import ParameterError

if TYPE_CHECKING:
    from unidiff.denoiser import Denoiser

__all__ = ["check_conditions", "check_required", "condition_of", "null_conditions", "on_device"]


def condition_of(model: Denoiser, name: str) -> Condition:
    """The condition of this name.

    Raises:
        ParameterError: If the model has none.
    """
    if model.conditions is None:
        return Named(name)
    if (condition := named(model.conditions, name)) is not None:
        return condition
    names = " and ".join(condition.name for condition in model.conditions)
    if not names:
        raise ParameterError(name, "this model is unconditional. Leave it out.")
    raise ParameterError(name, f"the model has no condition of this name; it accepts {names}")


def null_conditions(cond: Mapping[str, Tensor], model: Denoiser) -> dict[str, Tensor]:
    """The null conditions of the same names and rows."""
    return {name: condition_of(model, name).null(len(value), value) for name, value in cond.items()}


def on_device(cond: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """The conditions on the device of a state, moved once for a run."""
    return {name: value.to(device) for name, value in cond.items()}


def check_required(cond: Mapping[str, Tensor], model: Denoiser) -> None:
    """Raise a ParameterError, such as "classifier-free guidance needs the condition 'label'", if one is missing."""
    for name, who in model.required.items():
        if name not in cond:
            raise ParameterError(name, f"{who} needs the condition {name!r}, {condition_of(model, name).words}")


def check_conditions(
    cond: Mapping[str, Tensor], model: Denoiser, count: int, device: torch.device | str
) -> dict[str, Tensor]:
    """Check all conditions, their values too, before a run begins.

    Args:
        cond: The conditions.
        model: The model.
        count: Samples, B.
        device: Where to move the conditions.

    Returns:
        The conditions, on the device.

    Raises:
        ParameterError: If a required condition is missing, or a condition is not the model's or not one per sample.
    """
    check_required(cond, model)
    return on_device({name: condition_of(model, name).check(value, count) for name, value in cond.items()}, device)
