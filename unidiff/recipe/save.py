"""Objects -> plain values -> text: the resolved recipe, in which every parameter is written out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from unidiff.arguments import PlainArguments
from unidiff.errors import RecipeError
from unidiff.recipe.blueprint import Blueprint, parameters
from unidiff.recipe.registry import PUBLIC, Registry, is_component
from unidiff.recipe.schema import is_record
from unidiff.recipe.yaml_tree import write_yaml

__all__ = ["Record", "to_plain"]


class Record(PlainArguments):
    """A frozen dataclass whose parameters are the top-level keys of a recipe file."""

    is_record: ClassVar[bool] = True  # also below an abstract base: a mapping without `type`

    def to_dict(self) -> dict[str, Any]:
        """Every parameter with its value, defaults included, as plain values."""
        return dict(to_plain(self))

    def to_yaml(self) -> str:
        """The resolved recipe as a file's text; reading that file gives an equal recipe."""
        return write_yaml(self.to_dict())


def to_plain(value: Any, registry: Registry = PUBLIC, key: str = "") -> Any:
    """Turn a value of a recipe into what a YAML file would say.

    Args:
        value: A component, a record, a blueprint or a plain value.
        registry: Where the names of classes come from.
        key: Dotted path of the value, for the error message.

    Returns:
        Mappings, lists and scalars; a component's mapping begins with `type`.

    Raises:
        RecipeError: If a recipe cannot express the value, such as a function.
    """
    if isinstance(value, Blueprint):
        inside = {name: to_plain(part, registry, f"{key}.{name}") for name, part in value.arguments.items()}
        return {"type": registry.name_of(value.kind), **inside}
    if is_component(type(value)) or is_record(type(value)):
        head = {"type": registry.name_of(type(value))} if is_component(type(value)) else {}
        names = parameters(type(value))
        return head | {name: to_plain(getattr(value, name), registry, f"{key}.{name}".strip(".")) for name in names}
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):  # and what only derives from them, such as NumPy's float64
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_plain(part, registry, f"{key}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(name): to_plain(part, registry, f"{key}.{name}") for name, part in value.items()}
    where = f"{key}: " if key else ""
    raise RecipeError(
        f"{where}{value!r} cannot be written in a recipe. A recipe holds numbers, strings, lists and components; "
        "put the value behind a component class of your own."
    )
