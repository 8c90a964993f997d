"""Validation of fields: on the grid, finite, and with a gradient above rounding error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from unidiff.errors import ParameterError, require
from unidiff.pde.domain import Domain

__all__ = ["FieldLike", "Times", "as_field", "as_modes", "field_modes", "reject_constants", "single_field", "volume"]

FieldLike: TypeAlias = Tensor | np.ndarray[Any, Any] | Callable[..., Any]
Times: TypeAlias = Tensor | Sequence[float] | float

# A mode is a sum of products, rounded to at most n eps |u|; sums in blocks and fast transforms stay under 14 eps |u| on
# intervals, rectangles and masks of up to 20,000 cells.
_ROUNDING = 64


def as_field(domain: Domain, u0: FieldLike, parameter: str = "u0") -> Tensor:
    """Validated values on the grid, (*B, *grid), of a field passed by a user.

    Args:
        domain: The domain.
        u0: A tensor or an array, (*B, *grid), or a function of the coordinates. Integers become float64.
        parameter: The argument's name, for errors.

    Raises:
        ParameterError: If it is not on the grid, not finite, or constant.
    """
    values = _validated(domain.field(u0) if callable(u0) else u0, domain.points[0].shape, parameter)
    axes = tuple(range(-domain.points[0].ndim, 0))
    low, high = values.detach().amin(axes), values.detach().amax(axes)
    rounding = 4 * torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
    reject_constants(high - low <= rounding, parameter)
    return values


def single_field(domain: Domain, u0: FieldLike, times: Times) -> tuple[Tensor, float, Tensor]:
    """A field of mean 0 and largest size 1, (*grid), so that no square overflows; its scale; and times, (T)."""
    at = torch.as_tensor(times, dtype=torch.float64).reshape(-1)
    increasing = len(at) > 0 and float(at[0]) >= 0 and bool((at.diff() > 0).all()) and math.isfinite(at[-1])
    require(increasing, "times", at.tolist(), "increasing finite numbers >= 0")
    field = as_field(domain, u0).detach().to("cpu", torch.float64)
    require(field.ndim == domain.points[0].ndim, "u0", tuple(field.shape), "one field, without a batch axis")
    start = field - field.mean()
    scale = float(start.abs().max())
    return start / scale, scale, at


def as_modes(domain: Domain, modes: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Validated modes, (*B, *modes), finite and of the domain; integers become float64."""
    return _validated(modes, domain.eigenvalues.shape, "modes")


def field_modes(domain: Domain, values: Tensor, parameter: str = "u0") -> Tensor:
    """The modes, (*B, *modes), of values on the grid, (*B, *grid), if their gradient exceeds rounding error.

    A transform has errors of order eps |u| in every mode, and so gradient norms of sqrt(lambda_k) eps |u|, even for a
    constant or a field that is orthogonal to all modes of the domain. Renormalisation would amplify these errors to R.

    Raises:
        ParameterError: If no mode has a larger gradient norm.
    """
    modes = domain.to_modes(values)
    eigenvalues = domain.eigenvalues.to(modes)
    size = (eigenvalues.sqrt() * modes.detach().abs()).flatten(-eigenvalues.ndim)
    largest, k = size.max(-1)
    flat = values.detach().flatten(-domain.points[0].ndim)
    peak = flat.abs().amax(-1)  # taken out, so that no square overflows
    norm = peak * (flat / peak[..., None]).square().mean(-1).sqrt() * volume(domain) ** 0.5
    rounding = _ROUNDING * torch.finfo(modes.dtype).eps * eigenvalues.flatten()[k].sqrt() * norm
    reject_constants(largest <= rounding, parameter)
    return modes


def volume(domain: Domain) -> float:
    """The volume of the domain: the squared norm of the constant 1."""
    return float(domain.to_modes(torch.ones_like(domain.points[0])).square().sum())


def reject_constants(constant: Tensor, parameter: str) -> None:
    """Raise a ParameterError if any field of the batch is constant, (*B)."""
    if bool(constant.any()):
        which = f" (number {int(constant.flatten().nonzero()[0])} of the batch)" if constant.numel() > 1 else ""
        problem = f"the field is constant{which} to rounding error (as resolved by the domain's modes)"
        raise ParameterError(parameter, f"{problem}; |grad u| = 0 cannot be renormalised.")


def _validated(values: Any, shape: torch.Size, parameter: str) -> Tensor:
    """A finite tensor of floats with these last axes."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(parameter, f"must be numbers, got {type(values).__name__}") from error
    require(not tensor.is_complex(), parameter, "complex numbers", "real")
    fits = tensor.shape[max(0, tensor.ndim - len(shape)) :] == shape
    require(fits, parameter, tuple(tensor.shape), f"a tensor with last axes {tuple(shape)}")
    require(bool(tensor.isfinite().all()), parameter, "NaN or infinity", "finite")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)
