"""The parameters of a constructor: the keys of a recipe."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from inspect import Parameter
from typing import Any

__all__ = ["parameters"]


def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters of a constructor that a recipe may write, each with its evaluated annotation and default.

    A class with weights is not a dataclass, and its first parameter, `shape`, comes from the data: it is left out.

    Args:
        cls: The class.

    Returns:
        Parameters by name, in the order of the signature.
    """
    is_data = dataclasses.is_dataclass(cls)
    # A dataclass inherits fields whose annotations are names of another module: only the class can resolve them.
    hints = typing.get_type_hints(cls if is_data else cls.__init__, include_extras=True)  # type: ignore[misc]
    factories: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(cls)} if is_data else {}
    keys = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) or (name == "shape" and not is_data):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()
        keys[name] = parameter.replace(annotation=hints.get(name, Any), default=default)
    return keys
