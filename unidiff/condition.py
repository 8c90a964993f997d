"""Conditions: what a model is told beside state and time. Each is a tensor with a row per sample, handed on by name.

`label` is the class of each sample, integers (B,) from 0; -1 is the null class, "nothing is said". A model that
knows classes takes a missing `label` for -1 in every row.

`image` is a picture for each sample, floats (B, C', H, W) in [-1, 1]; zeros say nothing. A model that knows images
needs one: a forgotten picture would give samples of something else than was meant, which nobody would see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from unidiff.errors import ParameterError

__all__ = [
    "NULL",
    "ConditionSpec",
    "check_conditions",
    "check_image",
    "check_label",
    "check_label_form",
    "check_required",
    "null_conditions",
    "on_device",
]

NULL = -1


class ConditionSpec(Protocol):
    """Which conditions a model was made for.

    Attributes:
        classes: Number of classes; None if it knows none.
        image: Shape (C', H, W) of its images; None if it knows none.
        condition_names: Names of all conditions it accepts; None if any name may be one.
        required: Names of those it cannot do without, and what needs them.
    """

    classes: int | None
    image: tuple[int, ...] | None
    condition_names: tuple[str, ...] | None
    required: Mapping[str, str]


def null_conditions(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same conditions with nothing said: the null class for integers, 0 for everything else."""
    return {name: torch.full_like(value, 0 if value.is_floating_point() else NULL) for name, value in cond.items()}


def check_label_form(label: Tensor, classes: int | None, count: int) -> None:
    """Like `check_label`, in a loop: values on a device, which the host would have to wait for, are not looked at."""
    check_label(label, classes, count, values=isinstance(label, Tensor) and label.device.type == "cpu")


def check_label(label: Tensor, classes: int | None, count: int, *, values: bool = True) -> None:
    """Refuse labels that a model does not know.

    Args:
        label: What was given.
        classes: Number of classes that the model knows; None if it knows none.
        count: Samples, B.
        values: Whether to look at the values.

    Raises:
        ParameterError: If the model is unconditional, or a label is no integer from -1 to classes - 1, or there is
            not one for each sample.
    """
    if classes is None:
        raise ParameterError("label", "this model is unconditional: it was trained without classes. Leave it out.")
    fits = isinstance(label, Tensor) and label.shape == (count,)
    if not fits or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        what = f"{label.dtype} of shape {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
        raise ParameterError("label", f"must be integers, one for each of {count} samples, got {what}")
    if not values:
        return
    label = label.to(torch.int64)  # in bytes -1 would be 255
    wrong = label[(label < NULL) | (label >= classes)]
    if len(wrong):
        problem = f"class {int(wrong[0])} was given; the {classes} classes are 0 to {classes - 1}, and -1 is none."
        raise ParameterError("label", problem)


def on_device(cond: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """The conditions on the device of a state, moved once for a run."""
    return {name: value.to(device) for name, value in cond.items()}


def check_image(image: Tensor, shape: tuple[int, ...] | None, count: int) -> None:
    """Refuse images that a model does not know.

    Args:
        image: What was given.
        shape: Shape (C', H, W) that the model knows; None if it knows none.
        count: Samples, B.

    Raises:
        ParameterError: If the model was made without images, or these are no floats of its shape in [-1, 1].
    """
    if shape is None:
        raise ParameterError("image", "this model was trained without images as conditions. Leave it out.")
    needed = (count, *shape)
    if not isinstance(image, Tensor) or image.shape != needed or not image.is_floating_point():
        what = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else repr(image)
        raise ParameterError("image", f"must be floats of shape {needed}, got {what}")
    if not bool((image.abs() <= 1.0001).all()):  # bicubic resizing and rounding may end a little outside
        low, high = float(image.min()), float(image.max())
        problem = f"values from {low:g} to {high:g} were given; allowed is [-1, 1]: x / 127.5 - 1 for bytes."
        raise ParameterError("image", problem)


def check_required(cond: Mapping[str, Tensor], model: ConditionSpec) -> None:
    """Raise unless the conditions that a model cannot do without are there.

    Raises:
        ParameterError: Such as "classifier-free guidance needs the condition 'label'".
    """
    for name, who in model.required.items():
        if name not in cond:
            if name == "image" and model.image is not None:
                who += f" needs the condition 'image', {tuple(model.image)} for each sample (all zeros = unconditional)"
                raise ParameterError(name, who)
            raise ParameterError(name, f"{who} needs the condition {name!r}")


def check_conditions(
    cond: Mapping[str, Tensor], model: ConditionSpec, count: int, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Check conditions before a run begins; see `check_label`, `check_image` and `check_required`.

    Args:
        cond: The conditions.
        model: The model.
        count: Samples, B.
        device: Where the model is; conditions are moved there, once. None to leave them where they are.

    Returns:
        The conditions, on the device.

    Raises:
        ParameterError: With the reason.
    """
    check_required(cond, model)
    for name, value in cond.items():
        if name == "label":
            check_label(value, model.classes, count)
        elif name == "image":
            check_image(value, model.image, count)
        elif model.condition_names is not None and name not in model.condition_names:
            accepted = (
                f"it accepts {' and '.join(model.condition_names)}" if model.condition_names else "it is unconditional"
            )
            raise ParameterError(name, f"the model has no condition of this name; {accepted}")
        elif len(value) != count:
            raise ParameterError(name, f"must have one row for each of {count} samples, got {len(value)}")
    return dict(cond) if device is None else on_device(cond, device)
