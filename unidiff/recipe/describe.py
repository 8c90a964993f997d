"""A class's parameters in words: what `unidiff describe` shows."""

from __future__ import annotations

import inspect
from typing import NamedTuple

from unidiff.recipe.parameters import parameters
from unidiff.recipe.save import to_plain
from unidiff.recipe.schema import phrase
from unidiff.recipe.yaml_tree import write_yaml

__all__ = ["Row", "signature_rows"]


class Row(NamedTuple):
    """One line of a class's description, all in plain words."""

    name: str
    type: str
    default: str
    doc: str


def signature_rows(cls: type) -> list[Row]:
    """Describe the parameters of a class for people.

    Args:
        cls: A class that a recipe can name.

    Returns:
        For each parameter its name, what it may be, its default as a recipe writes it ("required" where there is none)
        and its line in the docstring's "Args:".
    """
    docs = _documented(cls)
    rows = []
    for name, parameter in parameters(cls).items():
        if name.startswith("_"):
            continue
        default = "required" if parameter.required else write_yaml(to_plain(parameter.default), flow=True)
        rows.append(Row(name, phrase(parameter.annotation), default, docs.get(name, "")))
    return rows


def _documented(cls: type) -> dict[str, str]:
    """Parameter descriptions from Google-style "Args:" sections, those of a base class first."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        for text in (owner.__dict__.get("__doc__"), getattr(owner.__dict__.get("__init__"), "__doc__", None)):
            docs.update(_args_section(text) if isinstance(text, str) else {})
    return docs


def _args_section(docstring: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    inside, margin, name = False, 0, ""
    for line in inspect.cleandoc(docstring).splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip() or indent == 0:
            inside = line.strip() in ("Args:", "Attributes:") or (inside and not line.strip())
            name = ""
            continue
        if not inside:
            continue
        head, colon, rest = line.strip().partition(":")
        margin = indent if not docs else margin
        if indent <= margin and colon:
            name = head.split("(")[0].strip()
            docs[name] = rest.strip()
        elif name:
            docs[name] = f"{docs[name]} {line.strip()}".strip()
    return docs
