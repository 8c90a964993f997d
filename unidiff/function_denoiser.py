"""A function of your own as a denoiser: a score, or anything else that determines E[x0 | u]."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from operator import attrgetter

import torch
from torch import Tensor

from unidiff.annotations import got
from unidiff.condition.network import conditions_of
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_shape
from unidiff.parameterization import Parameterization, Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level, Scale

__all__ = ["FromFunction"]

# What the second parameter of a function asks for by its name.
_LEVELS: dict[str, Callable[[Level], Scale]] = {name: attrgetter(name) for name in ("sigma", "alpha", "log_snr")}
_TIMES = ("t", "time", "_")


class FromFunction(Denoiser):
    """A denoiser from a function of the noisy state and its noise level: a hand-written score, E[x0 | u], and so on.

    The function sees the state as it is, and what it returns is taken as it is. A `NeuralDenoiser` is for networks: it
    divides their input by its root mean square, multiplies their output and passes 1000 t.

    Args:
        process: The process of the noisy states.
        parameterization: What the function returns: Score(), X0(), Eps(), V(), Velocity() and so on.
        function: Maps the state in pixels, (B, *shape), and its noise level to a tensor shaped like the state. What the
            level is, the name of the second parameter says: `sigma`, `alpha` or `log_snr`, those of the process, or
            `level`, a `Level` with all of them, or `t` or `time`, from 0 to 1. A number is a float64 tensor without
            axes on the CPU, or, where each sample has its own, (B, 1, ..., 1) on the state's device; so it broadcasts
            against the state. Further parameters are conditions, by name.
        shape: Shape of one sample, without the batch axis; None if it is given to each call of `sample`.

    Raises:
        ParameterError: If the function cannot be called, its second parameter has another name, the parameterization is
            undefined on the process, or the modes of the process have no one sigma that the function asks for;
            in use, if it does not return a tensor shaped like the state.
    """

    def __init__(
        self,
        process: Process,
        parameterization: Parameterization,
        function: Callable[..., Tensor],
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require(callable(function), "function", function, "a function of a state and its noise level")
        try:
            signature = inspect.signature(getattr(function, "forward", function))
            signature.bind_partial(None, None)
        except (TypeError, ValueError) as error:  # of other parameters, or one of torch's own, which has no signature
            remedy = "a Python function of a state and its noise level, such as lambda x, t: -x"
            raise ParameterError("function", f"must be {remedy}, got {got(function)} ({error})") from error
        parameterization.check(process)
        self._asked = [*signature.parameters][min(1, len(signature.parameters) - 1)]
        if self._asked not in (*_LEVELS, *_TIMES, "level"):
            problem = f"its second parameter is called {self._asked!r}, and the name decides what it is called with"
            raise ParameterError("function", f"{problem}. Write sigma, alpha, log_snr, level or t.")
        if self._asked in _LEVELS and process.basis.shape:
            problem = f"its parameter {self._asked} is one number for all modes, and those of {process!r} differ"
            raise ParameterError("function", f"{problem}. Take the time, t, or `level`.")
        self.process = process
        self.parameterization = parameterization
        self.function = function
        self.shape = None if shape is None else tuple(shape)
        self.conditions = conditions_of(function)

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise of the state; see `Denoiser.forward`."""
        basis = self.process.basis
        output = self.function(basis.inverse(u), self._noise_level(u, level), **cond)
        if not isinstance(output, Tensor):
            raise ParameterError("function", f"must return a tensor, and returned an object of {type(output).__name__}")
        require_shape("function", "returned values", output.shape, u.shape)
        return self.parameterization.solve(basis.forward(output.to(u.dtype)), u, level)

    def _noise_level(self, u: Tensor, level: Level) -> Level | Tensor:
        if self._asked == "level":
            return level
        number = torch.as_tensor(_LEVELS.get(self._asked, attrgetter("time"))(level), dtype=torch.float64)
        return number if number.ndim == 0 else number.to(u.dtype)
