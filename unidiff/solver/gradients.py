"""Sampling with or without gradients: without, unless the caller asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require

__all__ = ["optional_gradients"]

F = TypeVar("F", bound=Callable[..., Any])


def optional_gradients(function: F) -> F:
    """Decorate a function whose first argument is a denoiser and that has a keyword `grad`, which decides it.

    With grad=True the results are differentiable in the model's parameters, the conditions and all other tensors given.
    Autograd then keeps what the network saves in every step: memory grows as steps x batch. A network wrapped in
    `torch.utils.checkpoint` keeps its inputs alone, for a second evaluation.

    The function raises a ParameterError before any step if `grad` is not a bool, or gradients are asked for inside
    `torch.inference_mode`, or of a model through which they do not pass.
    """

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        grad = options.get("grad", False)
        require(isinstance(grad, bool), "grad", grad, "true or false")
        denoiser: Denoiser = args[0] if args else options["denoiser"]
        if grad and torch.is_inference_mode_enabled():
            raise ParameterError("grad", "there are no gradients inside torch.inference_mode. Call outside of it.")
        if grad and not denoiser.differentiable:
            problem = f"gradients do not pass through {type(denoiser).__name__}, which differentiates its own model."
            raise ParameterError("grad", f"{problem} Leave grad out.")
        with torch.set_grad_enabled(grad):
            return function(*args, **options)

    return cast(F, run)
