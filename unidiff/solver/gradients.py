"""Sampling with or without gradients: without, unless the caller asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import torch

from unidiff.errors import ParameterError, require

__all__ = ["gradients", "optional_gradients"]

F = TypeVar("F", bound=Callable[..., Any])


class _Model(Protocol):
    differentiable: bool


@contextmanager
def gradients(grad: bool, *models: _Model) -> Iterator[None]:
    """Compute with gradients if `grad` is set, without them otherwise.

    Raises:
        ParameterError: At once, if `grad` is not a bool, or gradients are asked for inside `torch.inference_mode`, or
            of a model through which they do not pass.
    """
    require(isinstance(grad, bool), "grad", grad, "true or false")
    if grad and torch.is_inference_mode_enabled():
        raise ParameterError("grad", "there are no gradients inside torch.inference_mode. Call outside of it.")
    for model in models if grad else ():
        if not model.differentiable:
            problem = f"gradients do not pass through {type(model).__name__}, which differentiates its own model."
            raise ParameterError("grad", f"{problem} Leave grad out.")
    with torch.set_grad_enabled(grad):
        yield


def optional_gradients(function: F) -> F:
    """Decorate a function whose first argument is a denoiser and that has a keyword `grad`, which decides it.

    With grad=True the results are differentiable in the model's parameters, the conditions and all other tensors given.
    Autograd then keeps what the network saves in every step: memory grows as steps x batch. A network wrapped in
    `torch.utils.checkpoint` keeps its inputs alone, for a second evaluation.

    The function raises a ParameterError before any step where there are no gradients; see `gradients`.
    """

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        models = args[:1] or [options[name] for name in ("denoiser",) if name in options]  # none: Python's own error
        with gradients(options.get("grad", False), *models):
            return function(*args, **options)

    return cast(F, run)
