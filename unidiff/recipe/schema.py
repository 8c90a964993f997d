"""The schema of a class, derived from its constructor: no parameter and no default is written in a second place."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model

from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.parameters import parameters
from unidiff.recipe.registry import an, is_component, noun

__all__ = ["is_blueprint", "is_record", "is_structured", "phrase", "plain_model", "written"]

_PREFIX = "field_"  # model fields get this in front, so that no parameter name can hide an attribute of BaseModel


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
def plain_model(cls: type) -> type[BaseModel]:
    """A pydantic model that knows a class's keys and checks its plain values.

    Values are taken as they are written: the text `"20"` is not a number and 1 is not true. Two things are allowed: an
    integer in place of a number, and a list in place of a tuple. Components pass through unchecked.
    """
    fields: dict[str, Any] = {}
    for name, parameter in parameters(cls).items():
        annotation = Any if is_structured(parameter.annotation) else _lenient(parameter.annotation)
        # A default would be a second copy of the constructor's: a key that was not written is simply not passed on.
        fields[_PREFIX + name] = (annotation, Field(... if parameter.required else None, alias=name))
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(cls.__name__, __config__=config, **fields)


def written(model: BaseModel) -> dict[str, Any]:
    """The values of a model that were written, by parameter name."""
    return {name.removeprefix(_PREFIX): getattr(model, name) for name in model.model_fields_set}


def _lenient(annotation: Any) -> Any:
    """The annotation, with tuples that also take a list and paths that also take text."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Path:
        return Annotated[Path, Strict(False)]
    if annotation is tuple or origin is tuple:
        inner: Any = tuple[tuple(_lenient(arg) for arg in args)] if args else tuple  # type: ignore[misc]
        return Annotated[inner, BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_lenient(arg) for arg in args)]  # noqa: UP007 (built at run time)
    if origin is list:
        return list[_lenient(args[0])]  # type: ignore[misc]
    return annotation


_PHRASES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "null",
    Any: "any value",
    tuple: "a list",
    list: "a list",
    dict: "a mapping",
}


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
        one = phrase(args[0])
        return f"a list, each of it {one}" if " or " in one else f"a list of {one.split(' ', 1)[1]}s"
    if origin is dict:
        return "a mapping"
    if is_record(annotation):
        return "a mapping"
    return an(noun(annotation)) if is_component(annotation) else f"{annotation}, which only Python can give"
