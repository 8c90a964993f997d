"""Constructors: their parameters, which are the keys of a recipe, and a class with arguments that is not built yet."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Generic, TypeVar

import torch

from unidiff.arguments import plain

__all__ = ["Blueprint", "parameters"]

T = TypeVar("T")


def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters of a constructor that a recipe may write, each with its evaluated annotation and default.

    A class with weights is not a dataclass, and its first parameter, `shape`, comes from the data: it is left out.

    Args:
        cls: The class.

    Returns:
        Parameters by name, in the order of the signature.
    """
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    made = {f.name: f.default_factory() for f in fields if f.default_factory is not dataclasses.MISSING}
    return {
        name: parameter.replace(default=made[name]) if name in made else parameter
        for name, parameter in _declared(cls).items()
    }


@functools.cache
def _declared(cls: type) -> Mapping[str, Parameter]:
    is_data = dataclasses.is_dataclass(cls)
    # A dataclass inherits fields whose annotations are names of another module: only the class can resolve them.
    sources = [cls] if is_data else [base.__init__ for base in reversed(cls.__mro__)]  # type: ignore[misc]
    hints: dict[str, Any] = {}  # a parameter without an annotation has that of a base class
    for source in sources:
        hints |= typing.get_type_hints(source, include_extras=True)
    return {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) and (name != "shape" or is_data)
    }


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
        given = {n: plain(n, value, keys[n].annotation) if n in keys else value for n, value in self.arguments.items()}
        object.__setattr__(self, "arguments", resolved | given)

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
