"""Conditions: what a model is conditioned on beside state and noise level, tensors with a row per sample, by name.

`label` is the class of each sample, integers (B,) from 0; -1 is the null class, no condition. A conditional model reads
a missing `label` as -1 in every row.

`image` is an image for each sample, floats (B, C', H, W) in [-1, 1]; all zeros is no condition. A model with image
conditions requires one: without it the samples would silently be unconditional.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError

__all__ = [
    "NULL",
    "check_conditions",
    "check_label",
    "check_names",
    "check_required",
    "described",
    "null_conditions",
    "on_device",
]

NULL = -1


def null_conditions(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The null conditions of the same names: the null class for integers, 0 for everything else."""
    return {name: torch.full_like(value, 0 if value.is_floating_point() else NULL) for name, value in cond.items()}


def on_device(cond: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """The conditions on the device of a state, moved once for a run."""
    return {name: value.to(device) for name, value in cond.items()}


def described(value: object) -> str:
    """Dtype and shape of a tensor, the repr of anything else: for messages."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def check_label(label: Tensor, classes: int | None, count: int) -> None:
    """Raise a ParameterError unless labels are `count` integers from -1 to classes - 1, and the model has classes.

    Values are checked on the CPU only, since for another device the host would have to wait.
    """
    if classes is None:
        raise ParameterError("label", "this model is unconditional: it was trained without classes. Leave it out.")
    fits = isinstance(label, Tensor) and label.shape == (count,)
    if not fits or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise ParameterError("label", f"must be integers, one for each of {count} samples, got {described(label)}")
    if label.device.type != "cpu":
        return
    label = label.to(torch.int64)  # in bytes -1 would be 255
    wrong = label[(label < NULL) | (label >= classes)]
    if len(wrong):
        raise ParameterError("label", f"must be from 0 to {classes - 1}, or -1 (unconditional), got {int(wrong[0])}")


def _check_image(image: Tensor, shape: tuple[int, ...] | None, count: int) -> None:
    """Raise unless these are image conditions of shape (C', H, W), in [-1, 1], one per sample."""
    if shape is None:
        raise ParameterError("image", "this model is not conditioned on images. Leave it out.")
    needed = (count, *shape)
    if not isinstance(image, Tensor) or image.shape != needed or not image.is_floating_point():
        raise ParameterError("image", f"must be floats of shape {needed}, got {described(image)}")
    if not bool((image.abs() <= 1.0001).all()):  # bicubic resizing and rounding may end a little outside
        low, high = float(image.min()), float(image.max())
        raise ParameterError("image", f"must be in [-1, 1] (bytes: x / 127.5 - 1), got values in [{low:g}, {high:g}]")


def check_required(cond: Mapping[str, Tensor], model: Denoiser) -> None:
    """Raise a ParameterError, such as "classifier-free guidance needs the condition 'label'", if one is missing."""
    for name, who in model.required.items():
        if name not in cond:
            image = name == "image" and model.image is not None
            shape = f", {model.image} for each sample (all zeros = unconditional)" if image else ""
            raise ParameterError(name, f"{who} needs the condition {name!r}{shape}")


def check_names(cond: Mapping[str, Tensor], model: Denoiser) -> None:
    """Raise a ParameterError if the model has no condition of one of these names."""
    for name in cond:
        if model.condition_names is not None and name not in model.condition_names:
            names = " and ".join(model.condition_names)
            accepted = f"it accepts {names}" if names else "it is unconditional"
            raise ParameterError(name, f"the model has no condition of this name; {accepted}")


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
    check_names({name: value for name, value in cond.items() if name not in ("label", "image")}, model)
    for name, value in cond.items():
        if name == "label":
            check_label(value.cpu() if isinstance(value, Tensor) else value, model.classes, count)
        elif name == "image":
            _check_image(value, model.image, count)
        elif len(value) != count:
            raise ParameterError(name, f"must have one row for each of {count} samples, got {len(value)}")
    return on_device(cond, device)
