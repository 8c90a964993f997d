"""The conditions of a call, checked against those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff.condition.base import Condition, Named, named
from unidiff.errors import ParameterError

if TYPE_CHECKING:
    from unidiff.denoiser import Denoiser

__all__ = [
    "check_all_made",
    "check_conditions",
    "check_made",
    "check_required",
    "check_taken",
    "condition_of",
    "null_conditions",
    "on_device",
    "require_alike",
]


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


def least_conditions(model: Denoiser, count: int) -> dict[str, Tensor]:
    """Null conditions of `count` samples, those that the model cannot do without."""
    like = next(model.parameters(), torch.empty(0))
    return {own.name: own.null(count, like) for own in model.conditions or () if own.name in model.required}


def on_device(cond: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """The conditions on the device of a state, moved once for a run."""
    return {name: value.to(device) for name, value in cond.items()}


def check_required(cond: Mapping[str, Tensor], model: Denoiser) -> None:
    """Raise a ParameterError, such as "classifier-free guidance needs the condition 'label'", if one is missing."""
    for name, who in model.required.items():
        if name not in cond:
            raise ParameterError(name, f"{who} needs the condition {name!r}, {condition_of(model, name).words}")


def check_made(cond: Mapping[str, Tensor], conditions: Iterable[Condition] | None) -> None:
    """Raise a ParameterError unless what a conditioning makes of data is what a network was built for.

    Args:
        cond: What it makes, by name.
        conditions: Those of the network; None if it takes any.
    """
    if conditions is None:
        return
    check_taken(cond, conditions)
    for condition in conditions:
        if condition.name not in cond:
            problem = f"it makes no {condition.name!r}, a condition of the network. Add one that does"
            raise ParameterError("conditioning", f"{problem}, or build the network without it.")
        value = cond[condition.name]
        try:
            condition.check(value, len(value))
        except ParameterError as error:
            problem = f"what it makes is not a condition that the network was built for: {error}"
            raise ParameterError("conditioning", problem) from error


def check_all_made(names: Iterable[str], model: object) -> None:
    """Raise a ParameterError if a model in training was built for a condition of another name: it would learn nothing.

    One that a network only names in its signature may be optional. A classifier and an autoencoder have none.
    """
    conditions: Iterable[Condition] = getattr(model, "conditions", None) or ()
    if missing := [own.name for own in conditions if own.declared and own.name not in names]:
        problem = f"nothing makes {missing[0]!r}, a condition of the network. Pass what does, such as Labels()"
        raise ParameterError("conditioning", f"{problem} for classes, or build the network without it.")


def check_taken(names: Iterable[str], conditions: Iterable[Condition] | None) -> None:
    """Raise a ParameterError if a conditioning makes a condition of a name that a network was not built for."""
    taken = [condition.name for condition in conditions or ()]
    if conditions is not None and (other := [name for name in names if name not in taken]):
        problem = f"it makes the condition {other[0]!r}, and those of the network are: {' and '.join(taken) or 'none'}"
        raise ParameterError("conditioning", f"{problem}. Name it in the network's `conditions`, with its kind.")


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


def require_alike(parameter: str, other: Denoiser, model: Denoiser, *names: str) -> None:
    """Raise a ParameterError unless another model has this one's attributes of these names, such as its process.

    Conditions go by their names, so their order does not matter.
    """
    for name in names:
        theirs, ours = getattr(other, name), getattr(model, name)
        if name == "conditions" and None not in (theirs, ours):
            theirs, ours = (tuple(sorted(each, key=lambda condition: condition.name)) for each in (theirs, ours))
        if theirs != ours:
            remedy = " Use Rescheduled." if name == "process" else ""
            raise ParameterError(parameter, f"its {name} must be the model's, {ours!r}, got {theirs!r}.{remedy}")
