"""Parts of a recipe in words, for captions: no constructor calls, no defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["how_drawn", "in_words"]


def in_words(part: Any) -> str:
    """A dataclass in words: its name, and those of its values that are not the defaults.

    `DDIM(eta=0.5)` is "DDIM, eta 0.5", `Tapered()` is "Tapered, 50 steps", and of a long sequence the length is given:
    "Polygon, 6 vertices".
    """
    return ", ".join([_name(part), *_values(part)])


def how_drawn(solver: Any, grid: Any, steps: int, seed: int) -> str:
    """Which solver drew samples on which grid of how many steps, and the first seed, in words.

    `Ancestral(variance_interpolation=0.0)` on `Native()` is "Ancestral, variance interpolation 0, on the Native grid of
    500 steps; seeds from 0".
    """
    name, values = _name(grid).removesuffix(" Grid"), _values(grid, without="steps")
    own = f" ({', '.join(values)})" if values else ""
    return f"{in_words(solver)}, on the {name} grid{own} of {steps} step{'s' * (steps != 1)}; seeds from {seed}"


def _name(part: Any) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", type(part).__name__)


def _values(part: Any, without: str = "") -> list[str]:
    return [_said(field.name, getattr(part, field.name)) for field in _changed(part) if field.name != without]


def _said(name: str, value: Any) -> str:
    name = name.replace("_", " ")
    if dataclasses.is_dataclass(value):
        return f"{name} ({in_words(value)})"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value} steps" if name == "steps" else f"{name} {value:g}"
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
