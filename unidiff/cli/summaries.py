"""First sentences of docstrings, read from the sources: to import what they describe would be to import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["summaries"]

_PACKAGE = Path(__file__).parents[1]
_DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
_DOCSTRING = re.compile(r'^    r?"""(.*?)(?:"""|$)', re.MULTILINE)
_STATEMENT = re.compile(r"^[^\s)]", re.MULTILINE)  # at the top level; the last line of a signature begins with )


def summaries(names: Mapping[str, str]) -> dict[str, str]:
    """Name -> first line of its docstring; empty without one.

    Args:
        names: Name of a class or function -> the module inside the package that defines it.
    """
    sources = {module: _first_lines(_PACKAGE / f"{module.replace('.', '/')}.py") for module in {*names.values()}}
    return {name: sources[module].get(name, "") for name, module in names.items()}


def _first_lines(path: Path) -> dict[str, str]:
    """Class or function at the top level of a source -> the first line of its docstring."""
    text = path.read_text("utf-8")
    lines = {}
    for begin in _DEFINITION.finditer(text):
        end = _STATEMENT.search(text, begin.end())
        if found := _DOCSTRING.search(text, begin.end(), end.start() if end else len(text)):
            lines[begin[1]] = found[1].strip()
    return lines
