"""Lazy imports: the public names of a package are listed in its `__init__.pyi` and imported when first used."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["attach", "exports"]


def exports(file: str) -> dict[str, str]:
    """Name -> module, for the stub beside the `__init__.py` at `file`, or for that file itself."""
    stub = Path(file).with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else Path(file)).read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module not in ("unidiff", "__future__")
        for alias in node.names
        if not alias.name.startswith("_")
    }


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """At most two names that are spelt like this one, whatever their case."""
    lower = {known.lower(): known for known in names}
    return [lower[known] for known in difflib.get_close_matches(name.lower(), lower, 2, 0.7)]


def attach(
    package: str, names: dict[str, str], renamed: dict[str, str], namespaces: tuple[str, ...] = ()
) -> Callable[[str], object]:
    """The `__getattr__` of a package that imports its names when first used.

    Args:
        package: The package's name.
        names: Name -> the module that defines it.
        renamed: Old name -> the dotted name that replaces it; an old name works with a DeprecationWarning.
        namespaces: Subpackages that are imported when first used.
    """

    def getattr_(name: str) -> object:
        if name in namespaces:
            return importlib.import_module(f"{package}.{name}")
        if name in names:
            value: object = getattr(importlib.import_module(names[name]), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in renamed:
            new = renamed[name]
            message = f"{package}.{name} is now {package}.{new}; the old name goes with the next release"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return functools.reduce(getattr, new.split("."), sys.modules[package])
        close = [] if name.startswith("_") else nearest(name, (*names, *namespaces))
        hint = f". Did you mean {' or '.join(close)}?" if close else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    return getattr_
