"""Values of a recipe with the location where each was written, and the error message that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from unidiff.errors import RecipeError, complaint

__all__ = ["Location", "Node", "Source"]

Scalar: TypeAlias = "str | int | float | bool | None"

_WIDTH = 120  # characters of a source line that an error message shows


@dataclass(frozen=True)
class Source:
    """A text that recipes are read from: a file, or one override of the command line.

    Args:
        name: The file's name, or `--set training.steps=20`.
        lines: Its lines, to be shown in messages. Empty for an override, whose name is its text.
    """

    name: str
    lines: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_override(self) -> bool:
        """Whether this is an override of the command line."""
        return not self.lines


@dataclass(frozen=True)
class Location:
    """One point in a source; line and column count from 1."""

    source: Source
    line: int = 1
    column: int = 1

    def error(self, key: str, problem: str, allowed: Iterable[str] | str = ()) -> RecipeError:
        """The error that points here, to be raised by the caller.

        Args:
            key: Dotted path of the key, such as `training.steps`; empty for the recipe as a whole.
            problem: What is wrong and how to fix it.
            allowed: What is valid here: a list of names, or a phrase.
        """
        at = "" if self.source.is_override else f":{self.line}:{self.column}"
        text = f"{self.source.name}{at}: {complaint(key, problem) if key else problem}{self._excerpt()}"
        listed = allowed if isinstance(allowed, str) else ", ".join(allowed)
        error = RecipeError(f"{text}\nAllowed here: {listed}" if listed else text)
        error.position = (self.line, self.column)
        return error

    def _excerpt(self) -> str:
        if not 1 <= self.line <= len(self.source.lines):
            return ""
        # One column for each character, and a window round the caret where the line is very long.
        line = "".join(c if c.isprintable() else " " for c in self.source.lines[self.line - 1])
        start = max(0, self.column - _WIDTH // 2) if len(line) > _WIDTH else 0
        caret = " " * (self.column - 1 - start) + "^"
        return f"\n{self.line:>5} | {line[start : start + _WIDTH]}\n{'':>5} | {caret}"


@dataclass(frozen=True)
class Node:
    """A value of a recipe and the location where it was written.

    Args:
        value: A scalar, a mapping of keys to nodes, or a list of nodes.
        location: Where the value begins.
        key: Where the key in front of it begins; None for the whole recipe and for elements of a list.
    """

    value: Scalar | dict[str, Node] | list[Node]
    location: Location
    key: Location | None = None

    @property
    def at(self) -> Location:
        """Where a message about this value points: at its key, which the message names, if it has one."""
        return self.key or self.location

    def children(self) -> dict[str, Node]:
        """The keys and values of a mapping; a bare name is short for a mapping with this `type`."""
        if isinstance(self.value, str):
            return {"type": Node(self.value, self.location, self.key)}
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value without locations."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def reach(self, path: Iterable[str]) -> Node:
        """The node at a path of keys and indices below this one, or the last that exists on the way there."""
        node = self
        for part in path:
            if isinstance(node.value, list) and part.isdecimal() and int(part) < len(node.value):
                node = node.value[int(part)]
            elif isinstance(node.value, dict) and part in node.value:
                node = node.value[part]
            else:
                break
        return node
