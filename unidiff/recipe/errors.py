"""What is wrong with a key or a value of a recipe, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from unidiff.errors import RecipeError
from unidiff.recipe import schema
from unidiff.recipe.blueprint import parameters
from unidiff.recipe.node import Node

__all__ = ["as_written", "gathered", "invalid_value", "join", "nearest", "unknown_key"]


_MOST = 20  # mistakes in one message


def gathered(problems: Iterable[RecipeError]) -> RecipeError:
    """One error for all of these, which may be gathered ones, in the order of their places; a single one as it is."""
    flat = [problem for error in problems for problem in error.problems or (error,)]
    flat = sorted({str(problem): problem for problem in flat}.values(), key=lambda problem: problem.position)
    if len(flat) == 1:
        return flat[0]
    more = [f"... and {len(flat) - _MOST} more."] if len(flat) > _MOST else []
    error = RecipeError("\n".join([f"the recipe has {len(flat)} mistakes:", *map(str, flat[:_MOST]), *more]))
    error.problems = tuple(flat)
    return error


def join(key: str, name: str) -> str:
    """The dotted path of a key inside another."""
    return f"{key}.{name}" if key else name


def as_written(node: Node) -> str:
    """What stands in the recipe, for `expected ..., got ...`."""
    if isinstance(node.value, (dict, list)):
        return "a mapping" if isinstance(node.value, dict) else "a list"
    if node.value is None or isinstance(node.value, bool):
        return "null" if node.value is None else str(node.value).lower()
    return repr(node.value)


def nearest(word: str, names: Iterable[str]) -> str:
    """Did you mean ...?, with a space in front; empty where nothing is near."""
    folded = {name.lower().replace("_", ""): name for name in names}
    close = difflib.get_close_matches(word.lower().replace("_", ""), list(folded), n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def invalid_value(annotation: Any, node: Node, key: str, path: Iterable[str | int] = ()) -> RecipeError:
    """The error for a value that its annotation does not allow, or for the element of a list at a path inside it."""
    for part in path:  # pydantic also names the arm of a union that it tried: such parts lead nowhere
        if isinstance(part, int) and isinstance(node.value, list) and part < len(node.value):
            node, key = node.value[part], f"{key}[{part}]"
    allowed = schema.phrase(annotation)
    remedy = _remedy(node.value, allowed)
    return node.at.error(key, f"expected {allowed}, got {as_written(node)}{'.' + remedy if remedy else ''}")


def unknown_key(cls: type, name: str, child: Node, node: Node, key: str) -> RecipeError:
    """The error for a key of a mapping that is not a parameter of its class."""
    keys = parameters(cls)
    hint = nearest(name, keys)
    if not hint:  # right key, wrong section?
        sections = [n for n, p in keys.items() if schema.is_record(p.annotation) and name in parameters(p.annotation)]
        hint = f" It belongs in {sections[0]!r}." if sections else ""
    chosen = node.value.get("type") if isinstance(node.value, dict) else None
    if chosen and chosen.at.source.is_override and chosen.at.source is not child.at.source:
        whole = f"--set {key}='{{type: {cls.__name__}}}'"
        hint += f" ({cls.__name__} was chosen by {chosen.at.source.name}; {whole} replaces all of it.)"
    if name == "shape" and not hint:
        hint = " The shape of a sample comes from the data."
    if name == "steps" and not hint:  # of a grid that has its own, or of a task that trains nothing
        hint = " To draw samples in fewer steps, choose another grid: {type: Uniform, steps: 20}." * ("grid" in key)
    return child.at.error(join(key, name), f"unknown key.{hint}", keys or f"no keys: {cls.__name__} has no parameters")


def _remedy(value: Any, allowed: str) -> str:
    """What to write instead, where the slip is a common one."""
    if isinstance(value, float) and value.is_integer() and "integer" in allowed:
        return f" Write {int(value)}."
    if not isinstance(value, str):
        return ""
    if value.lower() in ("yes", "no", "on", "off") and "true or false" in allowed:
        return f" Write {'true' if value.lower() in ('yes', 'on') else 'false'}."
    if value == "None" and "null" in allowed:
        return " Write null."
    if ("number" in allowed or "integer" in allowed) and value.strip("+-").replace(".", "", 1).isdigit():
        return f" Write {value} without quotes."
    return nearest(value, allowed.split(" or "))
