"""Where tensors, shapes and number formats are checked: once, before a run, against what the model was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unidiff.errors import ParameterError, is_whole, require

__all__ = [
    "CalledAtLevels",
    "check_axes",
    "check_batch",
    "check_floats",
    "check_format",
    "described",
    "require_own_shape",
]


def described(value: object) -> str:
    """Dtype and shape of a tensor, the repr of anything else: for messages."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


class CalledAtLevels:
    """A base of models, beside `nn.Module`: a call with a number or an array in the wrong place is one sentence."""

    def __call__(self, u: Any, level: Any, *others: Any, **cond: Any) -> Any:
        if not isinstance(u, Tensor):
            raise ParameterError(
                "u", f"must be a tensor (B, *shape), got an object of {type(u).__name__}. Make one: torch.as_tensor(u)"
            )
        if isinstance(level, (int, float, Tensor)):
            raise ParameterError(
                "level", f"must be a Level, got {described(level)}. Take that of a time: model.process.level(t)"
            )
        return super().__call__(u, level, *others, **cond)  # type: ignore[misc]


def check_axes(shape: Sequence[int], own: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample as a tuple; a ParameterError if it cannot be one, or has other axes than a model's own.

    A network may take other sizes than its own (a convolutional one does), but no other number of axes or channels.
    """
    whole = isinstance(shape, (tuple, list)) and len(shape) > 0 and all(is_whole(size) for size in shape)
    require(whole, "shape", shape, "the lengths of a sample's axes, such as (1, 28, 28)")
    if own is not None and (len(shape), shape[0]) != (len(own), own[0]):
        raise _not_made_for(shape, own)
    return tuple(shape)


def check_format(dtype: torch.dtype, device: torch.device | str) -> None:
    """Raise a ParameterError unless states can be of a floating type, on a device of this machine."""
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    require(floating, "dtype", dtype, "a floating type such as torch.float32")
    try:
        fits = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ParameterError("device", f"must be a device of this machine, such as cpu, got {device!r}") from error
    require(fits, "device", device, "a device with numbers, such as cpu")


def check_floats(parameter: str, x: Tensor, shape: Sequence[int | str], fits: bool, *, finite: bool = True) -> None:
    """Raise a ParameterError unless a tensor is of finite floats and `fits` the shape that the message names.

    Args:
        parameter: Its name.
        x: The tensor.
        shape: The shape for the message; a first axis "B" is one of samples.
        fits: Whether the tensor has it.
        finite: Whether to look at the values, for which the host waits.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point() and fits):
        named = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        grey = isinstance(x, Tensor) and x.dtype in (torch.uint8, torch.int32, torch.int64)
        remedy = ". Grey values from 0 to 255: x / 127.5 - 1" if grey else ""
        raise ParameterError(parameter, f"must be floats of shape ({named}), got {described(x)}{remedy}")
    if finite and not bool(x.isfinite().all()):
        where = f" in sample {int((~x.isfinite()).nonzero()[0, 0])}" if shape[0] == "B" else ""
        raise ParameterError(parameter, f"must be finite numbers, got NaN or infinity{where}")


def check_batch(parameter: str, x: Tensor, own: Sequence[int] | None, *, finite: bool = True) -> None:
    """Raise a ParameterError unless x is a batch of at least one sample, (B, *shape), of finite floats.

    Args:
        parameter: Its name.
        x: The samples.
        own: The model's own shape, whose channels and number of axes they must have; None if it has none.
        finite: As for `check_floats`.
    """
    fits = isinstance(x, Tensor) and x.ndim >= 2 and x.numel() > 0
    if fits and own is not None:
        fits = (x.ndim - 1, x.shape[1]) == (len(own), own[0])
    check_floats(parameter, x, ("B", *(own or ("*shape",))), fits, finite=finite)


def require_own_shape(shape: Sequence[int], own: Sequence[int]) -> None:
    """Raise a ParameterError unless the samples of a state have a model's own shape."""
    if tuple(shape) != tuple(own):
        raise _not_made_for(shape, own)


def _not_made_for(shape: Sequence[int], own: Sequence[int]) -> ParameterError:
    return ParameterError("shape", f"must be {tuple(own)}, which the model was made for, got {tuple(shape)}")
