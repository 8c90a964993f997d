"""Tables of names, read in both directions: weights of ours against those of diffusers, without importing it.

The layout of three weights differs: queries, keys and values are one matrix here and three there; the null class is row
0 of the embedding here and the last row there; their noise embedding may have cosines before sines, which permutes the
columns of the layer that reads it. Weights are moved, never computed with, so a round trip keeps them bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from unidiff.errors import ParameterError
from unidiff.text import first_line

__all__ = ["Names", "of_a_config", "unsupported"]

F = TypeVar("F", bound=Callable[..., Any])


class Names:
    """Names of weights, ours -> theirs.

    Args:
        *rules: Regular expressions on our names, and what replaces them; each name is subject to every rule, in order.
    """

    def __init__(self, *rules: tuple[str, str]) -> None:
        self._rules = [(re.compile(ours), theirs) for ours, theirs in rules]

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of one weight, whose rows are theirs one after another."""
        for pattern, replacement in self._rules:
            ours = pattern.sub(replacement, ours)
        return tuple(ours.replace(".qkv.", f".to_{letter}.") for letter in "qkv") if ".qkv." in ours else (ours,)

    def renamed(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under their names: views of ours."""
        names = {name: self.theirs(name) for name in ours}
        return {
            new: rows for name, value in ours.items() for new, rows in zip(names[name], value.chunk(len(names[name])))
        }

    def load(
        self, network: nn.Module, theirs: Mapping[str, Tensor], layouts: Mapping[str, Callable[[Tensor], Tensor]]
    ) -> None:
        """Copy their weights into a network, on whatever device it was built, and set it to evaluation mode.

        Args:
            network: The network.
            theirs: Weights under their names.
            layouts: By our names, our layout of a weight from theirs.

        Raises:
            ParameterError: If weights are missing, unknown or of another shape than the network's.
        """
        names = {ours: self.theirs(ours) for ours in network.state_dict()}
        expected = {name for several in names.values() for name in several}
        if expected != set(theirs):
            missing, extra = sorted(expected - set(theirs)), sorted(set(theirs) - expected)
            raise ParameterError("state", f"does not match the config: missing {missing}, unknown {extra}.")
        state = {ours: torch.cat([theirs[name] for name in several]).detach() for ours, several in names.items()}
        state |= {name: layout(state[name]) for name, layout in layouts.items() if name in state}
        for name, weight in network.state_dict().items():
            if state[name].shape != weight.shape:
                problem = f"{', '.join(names[name])} must have shape {tuple(weight.shape)} by the config"
                raise ParameterError("state", f"{problem}, got {tuple(state[name].shape)}")
        network.load_state_dict(state, assign=True)
        network.eval().requires_grad_()


def unsupported(
    config: Mapping[str, Any], supported: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """The entries of a config that differ from the only supported values.

    An absent key means its value in `defaults`, or the supported value.
    """
    values = {key: config.get(key, (defaults or {}).get(key, value)) for key, value in supported.items()}
    return [f"{key} = {values[key]!r} (must be {value!r})" for key, value in supported.items() if values[key] != value]


def of_a_config(read: F) -> F:
    """Decorate a function of a config: a value of another type than diffusers writes is a ParameterError."""

    @wraps(read)
    def translated(*args: Any, **options: Any) -> Any:
        try:
            return read(*args, **options)
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            problem = f"a value has another type or size than in diffusers' own ({first_line(error)})."
            raise ParameterError("config", problem) from error

    return cast(F, translated)
