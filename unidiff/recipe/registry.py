"""Names -> classes: the flat namespace of the package, read as the list of what a recipe may name."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from abc import ABC, ABCMeta
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import unidiff
from unidiff.renamed import RENAMED, STRINGS

__all__ = ["PUBLIC", "Registry", "an", "is_component", "kind_of", "new_name", "noun", "same_name"]


def is_component(annotation: object) -> bool:
    """Whether this is a class that a recipe names with `type`: a base class such as Process, or one below it."""
    return isinstance(annotation, ABCMeta) and not getattr(annotation, "is_record", False)


def an(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def noun(base: type) -> str:
    """What a base class is called in messages: `initial condition` for InitialCondition."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base.__name__).lower()


def kind_of(cls: object) -> str:
    """What a class is, in a word: `process` for NCSN; empty for anything that is no component."""
    bases = [noun(base) for base in getattr(cls, "__mro__", ()) if ABC in base.__bases__]
    return bases[-1] if bases else ""


def _fold(name: str) -> str:
    return name.replace("_", "").lower()


def same_name(one: str, other: str) -> bool:
    """Whether two names differ in case and underscores only."""
    return _fold(one) == _fold(other)


def new_name(name: str, base: type) -> str | None:
    """The public name of a `base` that replaces an old one, ignoring case and underscores; None if it is not old."""
    names = RENAMED | STRINGS.get(base.__name__, {})
    return {_fold(old): new for old, new in names.items() if not same_name(old, new)}.get(_fold(name))


@dataclass(frozen=True)
class Registry:
    """What a `type` may name.

    Args:
        names: The public names; what they map to is not used here.
        get: From a name to what it stands for.
    """

    names: Mapping[str, Any]
    get: Callable[[str], Any]

    def find(self, name: str, base: type) -> Any:
        """What a name or an old name stands for, ignoring case and underscores; None if there is no such name.

        Where two names differ in case only, the one that is a `base` is meant.
        """
        name = _fold(new_name(name, base) or name)
        values = [self.get(public) for public in self.names if _fold(public) == name]
        fitting = [value for value in values if isinstance(value, type) and issubclass(value, base)]
        return next(iter(fitting or values), None)

    def choices(self, base: type) -> dict[str, type]:
        """The public classes below `base`, by name."""
        chosen: dict[str, type] = {}
        for name in self.names:
            if not name[:1].isupper():  # a function: its module may be slow to import and is no part of a recipe
                continue
            # A class that needs a package which is not installed cannot be offered; it must not hide the others.
            with contextlib.suppress(ImportError):
                value = self.get(name)
                if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value):
                    chosen[name] = value
        return dict(sorted(chosen.items()))

    def name_of(self, cls: type) -> str:
        """The name that a recipe gives to a class: its public name, or `module:Class` for one from elsewhere."""
        if cls.__name__ in self.names and self.get(cls.__name__) is cls:
            return cls.__name__
        return f"{cls.__module__}:{cls.__qualname__}"


@functools.cache
def _public(name: str) -> Any:
    return getattr(importlib.import_module(f"unidiff.{unidiff.EXPORTS[name]}"), name)


PUBLIC = Registry(unidiff.EXPORTS, _public)
