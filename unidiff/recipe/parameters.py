"""The parameters of a constructor: the keys of a recipe."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from dataclasses import dataclass
from typing import Any

__all__ = ["Parameter", "parameters"]

_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor, which is one key of a recipe."""

    name: str
    annotation: Any
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a recipe has to write this key."""
        return self.default is _REQUIRED


def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters of a constructor that a recipe may write.

    A class with weights is no dataclass, and its first parameter, `shape`, is supplied by the data: it is left out.

    Args:
        cls: The class.

    Returns:
        Parameters by name, in the order of the signature.
    """
    is_data = dataclasses.is_dataclass(cls)
    # For a dataclass, ask the class: its inherited fields are annotated in the words of another module.
    hints = typing.get_type_hints(cls if is_data else cls.__init__, include_extras=True)  # type: ignore[misc]
    factories = {f.name: f.default_factory for f in dataclasses.fields(cls)} if is_data else {}
    found = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or (name == "shape" and not is_data):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()
        found[name] = Parameter(name, hints.get(name, Any), default)
    return found
