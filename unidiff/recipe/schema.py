"""The schema of a class, derived from its constructor: no parameter and no default is written in a second place."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model

from unidiff.recipe.registry import an, is_component

__all__ = ["Parameter", "Row", "is_record", "is_structured", "parameters", "phrase", "plain_model", "signature_rows"]

_REQUIRED = inspect.Parameter.empty
_PREFIX = "field_"  # model fields get this in front, so that no parameter name can hide an attribute of BaseModel


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor, which is one key of a recipe."""

    name: str
    annotation: Any
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a recipe has to write this key."""
        return self.default is _REQUIRED


class Row(NamedTuple):
    """One line of a class's description, all in plain words."""

    name: str
    type: str
    default: str
    doc: str


def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters of a constructor that a recipe may write.

    A class with weights is no dataclass, and its first parameter, `shape`, is supplied by the data: it is left out.

    Args:
        cls: The class.

    Returns:
        Parameters by name, in the order of the signature.
    """
    is_data = dataclasses.is_dataclass(cls)
    # For a dataclass, ask the class: its inherited fields are annotated in the words of another module.
    hints = typing.get_type_hints(cls if is_data else cls.__init__, include_extras=True)  # type: ignore[misc]
    factories = {f.name: f.default_factory for f in dataclasses.fields(cls)} if is_data else {}
    found = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or (name == "shape" and not is_data):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()
        found[name] = Parameter(name, hints.get(name, Any), default)
    return found


def is_record(annotation: Any) -> bool:
    """Whether this is a concrete dataclass such as Training, which a recipe writes as a mapping without `type`."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation) and not is_component(annotation)


def is_blueprint(annotation: Any) -> bool:
    """Whether this is `Blueprint[Base]`: a component that is checked but not built."""
    return getattr(typing.get_origin(annotation), "__name__", "") == "Blueprint"


def is_structured(annotation: Any) -> bool:
    """Whether a component or a record is anywhere in this annotation, so that plain validation is not enough."""
    if is_component(annotation) or is_record(annotation) or is_blueprint(annotation):
        return True
    return any(is_structured(part) for part in typing.get_args(annotation))


@functools.cache
def plain_model(cls: type) -> type[BaseModel]:
    """A pydantic model that knows a class's keys and checks its plain values.

    Values are taken as they are written: the word `"20"` is no number and 1 is not true. Two things are allowed: a
    integer where a number belongs, and a list where a tuple belongs. Components pass through unchecked.
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
    return an(annotation.__name__.lower()) if is_component(annotation) else f"{annotation}, which only Python can give"


def signature_rows(cls: type) -> list[Row]:
    """Describe the parameters of a class for people.

    Args:
        cls: A class that a recipe can name.

    Returns:
        For each parameter its name, what it may be, its default as a recipe writes it ("required" where there is none)
        and its line in the docstring's "Args:".
    """
    from unidiff.recipe.save import to_plain
    from unidiff.recipe.yaml_tree import write_yaml

    docs = _documented(cls)
    rows = []
    for name, parameter in parameters(cls).items():
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
