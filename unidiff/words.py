"""Parts of a recipe in words, for captions: no constructor calls, no defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from unidiff.text import count_of

__all__ = ["in_words"]


def in_words(part: Any) -> str:
    """A dataclass in words: its name, and those of its values that are not the defaults.

    `DDIM(eta=0.5)` is "DDIM, eta 0.5", `Tapered()` is "Tapered, 50 steps", and of a long sequence the length is given:
    "Polygon, 6 vertices".
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", type(part).__name__)
    return ", ".join([name, *(_said(field.name, getattr(part, field.name)) for field in _changed(part))])


def _said(name: str, value: Any) -> str:
    name = name.replace("_", " ")
    if dataclasses.is_dataclass(value):
        return f"{name} ({in_words(value)})"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return count_of(int(value), "step") if name == "steps" else f"{name} {value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = len(value) <= 3 and all(isinstance(one, float | int) for one in value)
        return f"{name} {' x '.join(f'{one:g}' for one in value)}" if plain else f"{len(value)} {name}"
    return f"{name} {value}"


def _changed(part: Any) -> list[dataclasses.Field[Any]]:
    """The fields whose values are not the defaults, and always steps and order; never arrays."""
    fields = []
    for field in dataclasses.fields(part):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = getattr(part, field.name)
        if field.repr and not hasattr(value, "shape") and (value != default or field.name in ("steps", "order")):
            fields.append(field)
    return fields
