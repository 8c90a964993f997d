"""What is wrong with a key or a value, what was given, and what to write instead."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from unidiff.errors import RecipeError
from unidiff.recipe import schema
from unidiff.recipe.parameters import parameters
from unidiff.recipe.place import Node

__all__ = ["given", "join", "nearest", "refusal"]


def join(key: str, name: str) -> str:
    """The dotted path of a key inside another."""
    return f"{key}.{name}" if key else name


def given(node: Node) -> str:
    """What was written, as a clause."""
    if isinstance(node.value, dict):
        return "a mapping was given"
    if isinstance(node.value, list):
        return "a list was given"
    return "nothing (null) was given" if node.value is None else f"{_literal(node.value)} was given"


def _literal(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def nearest(word: str, names: Iterable[str]) -> str:
    """Did you mean ...?, with a space in front; empty where nothing is near."""
    folded = {name.lower().replace("_", ""): name for name in names}
    close = difflib.get_close_matches(word.lower().replace("_", ""), list(folded), n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def refusal(cls: type, children: dict[str, Node], node: Node, key: str, failure: ValidationError) -> RecipeError:
    """The error for the first thing that is wrong; an unknown key first, since it is often a misspelt required one."""
    known = parameters(cls)
    urgency = {"extra_forbidden": 0, "missing": 1}
    errors = failure.errors(include_url=False, include_context=False)
    # Deeper down, "missing" is an element of a list that is too short.
    first = min(errors, key=lambda error: urgency.get(error["type"], 2) if len(error["loc"]) == 1 else 2)
    name, *inner = first["loc"]
    name = str(name)
    if name not in known:
        return _unknown_key(cls, name, children[name], node, key)
    if name not in children:
        of = "the recipe" if not key else cls.__name__
        problem = f"this key is missing, and {of} needs it: {schema.phrase(known[name].annotation)}."
        return node.at.error(join(key, name), problem, known)
    wrong, path = children[name], join(key, name)
    for part in inner:  # pydantic also names the arm of a union that it tried: such parts lead nowhere
        if isinstance(part, int) and (below := wrong.reach([part])) is not wrong:
            wrong, path = below, f"{path}[{part}]"
    allowed = schema.phrase(known[name].annotation)
    return wrong.at.error(path, f"{given(wrong)}.{_remedy(wrong.value, known[name].annotation)}", allowed)


def _unknown_key(cls: type, name: str, child: Node, node: Node, key: str) -> RecipeError:
    known = parameters(cls)
    hint = nearest(name, known)
    if not hint:  # right key, wrong section?
        sections = [n for n, p in known.items() if schema.is_record(p.annotation) and name in parameters(p.annotation)]
        hint = f" It belongs in {sections[0]!r}." if sections else ""
    chosen = node.value.get("type") if isinstance(node.value, dict) else None
    override = chosen.at.source if chosen else None
    if override and not override.lines and override is not child.at.source:
        whole = f"--set {key}='{{type: {cls.__name__}}}'"
        hint += f" ({cls.__name__} was chosen by {override.name}; {whole} replaces all of it.)"
    if name == "shape" and not hint:
        hint = " The shape of a sample comes from the data."
    return child.at.error(
        join(key, name), f"there is no such key.{hint}", known or f"no keys: {cls.__name__} has no parameters"
    )


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
        if re.search("number|integer", allowed) and value.strip("+-").replace(".", "", 1).isdigit():
            return f" Write {value} without quotes."
        return nearest(value, _words(annotation))
    return ""
