"""A class with its arguments, not built yet: a network of a recipe before it has weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from unidiff.recipe.parameters import parameters

__all__ = ["Blueprint"]

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Blueprint(Generic[T]):
    """A class and its keyword arguments.

    Defaults are filled in when the blueprint is made: it compares equal to one that writes them out, and a run
    directory keeps the values it was trained with even if a default changes later.

    Args:
        kind: The class.
        arguments: Its keyword arguments, without the first one, `shape`, which the data supplies.
    """

    kind: type[T]
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        keys = parameters(self.kind)
        resolved = {name: p.default for name, p in keys.items() if name in self.arguments or p.default is not p.empty}
        # Unknown arguments stay, for the class to raise Python's own error when it is built.
        object.__setattr__(self, "arguments", resolved | dict(self.arguments))

    def build(self, **supplied: Any) -> T:
        """Make the object; a network has newly initialized weights.

        Args:
            **supplied: Arguments that no recipe writes: `shape`, the shape of one sample.
        """
        return self.kind(**supplied, **self.arguments)

    def count(self, **supplied: Any) -> int:
        """The number of scalars in a network's parameters, without allocating them; the constructor's checks run.

        Args:
            **supplied: As for `build`.
        """
        with torch.device("meta"):
            network: Any = self.build(**supplied)
        return sum(parameter.numel() for parameter in network.parameters())

    def __repr__(self) -> str:
        inside = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return f"Blueprint({self.kind.__name__}{inside})"
