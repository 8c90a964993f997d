"""What is wrong with a key or a value, and what to write instead."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from unidiff.errors import RecipeError
from unidiff.recipe import schema
from unidiff.recipe.parameters import parameters
from unidiff.recipe.place import Node

__all__ = ["join", "nearest", "rejection", "written"]


def join(key: str, name: str) -> str:
    """The dotted path of a key inside another."""
    return f"{key}.{name}" if key else name


def written(node: Node) -> str:
    """What was written, for `expected ..., got ...`."""
    if isinstance(node.value, (dict, list)):
        return "a mapping" if isinstance(node.value, dict) else "a list"
    return "null" if node.value is None else _literal(node.value)


def _literal(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def nearest(word: str, names: Iterable[str]) -> str:
    """Did you mean ...?, with a space in front; empty where nothing is near."""
    folded = {name.lower().replace("_", ""): name for name in names}
    close = difflib.get_close_matches(word.lower().replace("_", ""), list(folded), n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def rejection(cls: type, children: dict[str, Node], node: Node, key: str, failure: ValidationError) -> RecipeError:
    """The error for the first thing that is wrong; an unknown key first, since it is often a misspelt required one."""
    keys = parameters(cls)
    urgency = {"extra_forbidden": 0, "missing": 1}
    errors = failure.errors(include_url=False, include_context=False)
    # Deeper down, "missing" is an element of a list that is too short.
    first = min(errors, key=lambda error: urgency.get(error["type"], 2) if len(error["loc"]) == 1 else 2)
    name, *inner = first["loc"]
    name = str(name)
    if name not in keys:
        return _unknown_key(cls, name, children[name], node, key)
    if name not in children:
        problem = f"missing required key ({schema.phrase(keys[name].annotation)})"
        return node.at.error(join(key, name), problem, keys)
    wrong, path = children[name], join(key, name)
    for part in inner:  # pydantic also names the arm of a union that it tried: such parts lead nowhere
        if isinstance(part, int) and (below := wrong.reach([part])) is not wrong:
            wrong, path = below, f"{path}[{part}]"
    expected, remedy = schema.phrase(keys[name].annotation), _remedy(wrong.value, keys[name].annotation)
    return wrong.at.error(path, f"expected {expected}, got {written(wrong)}{'.' + remedy if remedy else ''}")


def _unknown_key(cls: type, name: str, child: Node, node: Node, key: str) -> RecipeError:
    keys = parameters(cls)
    hint = nearest(name, keys)
    if not hint:  # right key, wrong section?
        sections = [n for n, p in keys.items() if schema.is_record(p.annotation) and name in parameters(p.annotation)]
        hint = f" It belongs in {sections[0]!r}." if sections else ""
    chosen = node.value.get("type") if isinstance(node.value, dict) else None
    override = chosen.at.source if chosen else None
    if override and not override.lines and override is not child.at.source:
        whole = f"--set {key}='{{type: {cls.__name__}}}'"
        hint += f" ({cls.__name__} was chosen by {override.name}; {whole} replaces all of it.)"
    if name == "shape" and not hint:
        hint = " The shape of a sample comes from the data."
    return child.at.error(join(key, name), f"unknown key.{hint}", keys or f"no keys: {cls.__name__} has no parameters")


def _words(annotation: Any) -> list[str]:
    """The words that an annotation allows: the texts in its Literals."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return [arg for arg in args if isinstance(arg, str)]
    return [word for arg in args for word in _words(arg)]


def _remedy(value: Any, annotation: Any) -> str:
    """What to write instead, where the slip is a common one."""
    allowed = schema.phrase(annotation)
    if isinstance(value, float) and value.is_integer() and "integer" in allowed:
        return f" Write {int(value)}."
    if isinstance(value, str):
        if value.lower() in ("yes", "no", "on", "off") and "true or false" in allowed:
            return f" Write {'true' if value.lower() in ('yes', 'on') else 'false'}."
        if value == "None" and "null" in allowed:
            return " Write null."
        if ("number" in allowed or "integer" in allowed) and value.strip("+-").replace(".", "", 1).isdigit():
            return f" Write {value} without quotes."
        return nearest(value, _words(annotation))
    return ""
