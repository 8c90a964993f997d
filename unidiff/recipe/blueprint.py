"""A class with its arguments, not built yet: what a recipe knows of a network before any weight exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
        given = dict(self.arguments)
        known = parameters(self.kind)
        resolved = {
            name: given.pop(name, known[name].default) for name in known if name in given or not known[name].required
        }
        # What is left over the class itself refuses, with Python's own words, when it is built.
        object.__setattr__(self, "arguments", resolved | given)

    def build(self, **supplied: Any) -> T:
        """Make the object.

        Args:
            **supplied: Arguments that no recipe writes: `shape`, the shape of one sample.

        Returns:
            A new object of the class; for a network, with freshly drawn weights.
        """
        return self.kind(**supplied, **self.arguments)

    def count(self, **supplied: Any) -> int:
        """Count the weights without making them; every check of the constructor runs on the way.

        Args:
            **supplied: As for `build`.

        Returns:
            The number of scalars in the network's parameters.
        """
        import torch

        with torch.device("meta"):
            network: Any = self.build(**supplied)
        return sum(parameter.numel() for parameter in network.parameters())

    def __repr__(self) -> str:
        inside = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return f"Blueprint({self.kind.__name__}{inside})"
