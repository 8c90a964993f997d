"""Annotations of constructors as the schema of a recipe: what checks a value, and what is allowed in words."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Strict, TypeAdapter

from unidiff.annotations import WORDS, list_of
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.registry import an, is_component, noun

__all__ = ["is_blueprint", "is_record", "is_structured", "phrase", "validator"]


def is_record(annotation: Any) -> bool:
    """Whether this is a concrete dataclass such as Training, which a recipe writes as a mapping without `type`."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation) and not is_component(annotation)


def is_blueprint(annotation: Any) -> bool:
    """Whether this is `Blueprint[Base]`: a component that is checked but not built."""
    return typing.get_origin(annotation) is Blueprint


def is_structured(annotation: Any) -> bool:
    """Whether a component or a record is anywhere in this annotation, so that plain validation is not enough."""
    if is_component(annotation) or is_record(annotation) or is_blueprint(annotation):
        return True
    return any(is_structured(part) for part in typing.get_args(annotation))


@functools.cache
def validator(annotation: Any) -> TypeAdapter[Any]:
    """What checks a plain value of a recipe.

    Values are taken as they are written: the text `"20"` is not a number and 1 is not true. Three things are allowed:
    an integer in place of a number, a list in place of a tuple, and text in place of a path.
    """
    return TypeAdapter(_lenient(annotation), config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _lenient(annotation: Any) -> Any:
    """The annotation, with tuples that also take a list and paths that also take text."""
    origin, args = typing.get_origin(annotation), tuple(map(_lenient, typing.get_args(annotation)))
    if annotation is Path or annotation is tuple:
        return Annotated[annotation, Strict(False)]
    if origin is tuple:
        return Annotated[tuple[args], Strict(False)]  # type: ignore[valid-type]
    if origin in (Union, types.UnionType):
        return Union[args]  # noqa: UP007 (built at run time)
    return list[args] if origin is list else annotation  # type: ignore[valid-type]


_PHRASES = {**WORDS, Path: "a path", type(None): "null"}


def phrase(annotation: Any) -> str:
    """What an annotation allows, in words: `a list of integers`, `a process or null`."""
    if annotation in _PHRASES:
        return _PHRASES[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated or is_blueprint(annotation):
        return phrase(args[0])
    if origin is Literal:
        return " or ".join("null" if arg is None else str(arg) for arg in args)
    if origin in (Union, types.UnionType):
        return " or ".join(phrase(arg) for arg in args)
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)}: {', '.join(phrase(arg) for arg in args)}"
    if args and (origin in (tuple, list) or getattr(origin, "__name__", "") == "Sequence"):
        return list_of(phrase(args[0]))
    if origin is dict or is_record(annotation):
        return "a mapping"
    return an(noun(annotation)) if is_component(annotation) else f"{annotation}, which only Python can give"
