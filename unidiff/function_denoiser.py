"""A function of your own as a denoiser: a score, or anything else that determines E[x0 | u]."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unidiff.condition.network import conditions_of
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_shape
from unidiff.parameterization import Parameterization, Prediction, Score
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["FunctionDenoiser"]

_SCORE = Score()


class FunctionDenoiser(Denoiser):
    """A denoiser from a function of the noisy state and its time, by default its score, grad log p(u_t).

    Args:
        process: The process of the noisy states.
        function: Maps the state in pixels, (B, *shape), and the time t to a tensor shaped like the state. The time is
            a float64 tensor without axes on the CPU, or, where each sample has its own, (B, 1, ..., 1) on the state's
            device; so it broadcasts against the state. Further parameters are conditions, by name.
        shape: Shape of one sample, without the batch axis; None if it is given to each call of `sample`.
        parameterization: What the function returns: Score(), X0(), Eps(), V(), Velocity() and so on.

    Raises:
        ParameterError: If the function cannot be called, or the parameterization is undefined on the process; in use,
            if it does not return a tensor shaped like the state.
    """

    def __init__(
        self,
        process: Process,
        function: Callable[..., Tensor],
        shape: Sequence[int] | None = None,
        parameterization: Parameterization = _SCORE,
    ) -> None:
        super().__init__()
        require(callable(function), "function", function, "a function of a state and a time")
        try:
            inspect.signature(function).bind_partial(None, None)
        except (TypeError, ValueError) as error:  # of other parameters, or one of torch's own, which has no signature
            remedy = "a Python function of a state and a time, such as lambda x, t: -x"
            raise ParameterError("function", f"must be {remedy}, got {function!r} ({error})") from error
        parameterization.check(process)
        self.process = process
        self.function = function
        self.shape = None if shape is None else tuple(shape)
        self.parameterization = parameterization
        self.conditions = conditions_of(function)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state; see `Denoiser.forward`."""
        basis = self.process.basis
        pixels, t = basis.inverse(u), torch.as_tensor(level.time, dtype=torch.float64)
        output = self.function(pixels, t if t.ndim == 0 else t.to(u.dtype), **cond)
        require(isinstance(output, Tensor), "function", type(output), "a function that returns a tensor")
        require_shape("function", "returned values", output.shape, u.shape)
        return self.parameterization.solve(basis.forward(output.to(u.dtype)), u, level)
