"""A class's parameters in words: what `unidiff describe` shows."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import NamedTuple

from unidiff.recipe.blueprint import parameters
from unidiff.recipe.save import to_plain
from unidiff.recipe.schema import phrase
from unidiff.recipe.yaml_tree import write_yaml

__all__ = ["Row", "signature_rows"]

_SECTION = re.compile(r"^(?:Args|Attributes):\n((?: +\S.*\n?|\n)*)", re.M)
_ENTRY = re.compile(r"^(\w+)(?: *\(.*?\))?:(.*(?:\n +.*)*)", re.M)


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
        For each parameter its name, what it may be, its default as a recipe writes it ("required" where it has none)
        and its line in the docstring's "Args:".
    """
    docs = _documented(cls)
    rows = []
    for name, parameter in parameters(cls).items():
        if name.startswith("_"):
            continue
        required = parameter.default is parameter.empty
        default = "required" if required else write_yaml(to_plain(parameter.default), flow=True)
        rows.append(Row(name, phrase(parameter.annotation), default, docs.get(name, "")))
    return rows


def _documented(cls: type) -> dict[str, str]:
    """Parameter descriptions from Google-style "Args:" sections, those of a base class first."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        for text in (owner.__dict__.get("__doc__"), getattr(owner.__dict__.get("__init__"), "__doc__", None)):
            for section in _SECTION.findall(inspect.cleandoc(text or "")):
                docs |= {name: " ".join(doc.split()) for name, doc in _ENTRY.findall(textwrap.dedent(section))}
    return docs
