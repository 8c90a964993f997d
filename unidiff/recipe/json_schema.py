"""The schema of recipes as JSON Schema, from which an editor completes and checks them."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Union

from unidiff.recipe import schema
from unidiff.recipe.blueprint import parameters
from unidiff.recipe.describe import signature_rows
from unidiff.recipe.registry import PUBLIC, Registry, is_component
from unidiff.recipe.save import Record, to_plain

__all__ = ["json_schema"]


def json_schema(tasks: Sequence[type[Record]], registry: Registry = PUBLIC) -> dict[str, Any]:
    """The JSON Schema (draft 7) of recipes of these tasks.

    Args:
        tasks: The tasks.
        registry: What a `type` may name.
    """
    definitions = _Definitions(registry)
    arms = [definitions.record(task) for task in tasks]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of unidiff",
        "anyOf": arms,
        "definitions": dict(sorted(definitions.made.items())),
    }


class _Definitions:
    """The definitions that have been made, by name."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.made: dict[str, Any] = {}

    def record(self, cls: type) -> dict[str, Any]:
        """A reference to the mapping of a record."""
        return self._reference(cls.__name__, lambda: self._mapping(cls, {}))

    def _reference(self, name: str, make: typing.Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in self.made:
            self.made[name] = {}  # classes may contain one another
            self.made[name] = make()
        return {"$ref": f"#/definitions/{name}"}

    def _component(self, base: type) -> dict[str, Any]:
        """A reference to what stands for a component: a bare name, or a mapping with its `type`."""

        def make() -> dict[str, Any]:
            choices = self.registry.choices(base)
            bare = [name for name, cls in choices.items() if not _required(cls)]
            named = [self._reference(f"{name}()", partial(self._named, name, cls)) for name, cls in choices.items()]
            outside = {
                "type": "object",
                "properties": {"type": {"pattern": "[:.]"}},
                "required": ["type"],
            }  # module:Class
            return {"anyOf": [*([_spelling(bare)] if bare else []), *named, outside, {"pattern": "[:.]"} | _TEXT]}

        return self._reference(base.__name__, make)

    def _named(self, name: str, cls: type) -> dict[str, Any]:
        return self._mapping(cls, {"type": _spelling([name])})

    def _mapping(self, cls: type, head: dict[str, Any]) -> dict[str, Any]:
        docs = {row.name: row.doc for row in signature_rows(cls)}
        keys = {name: own for name, own in parameters(cls).items() if not name.startswith("_")}
        properties: dict[str, Any] = dict(head)
        for name, parameter in keys.items():
            allowed = self.value(parameter.annotation)
            properties[name] = (
                {"allOf": [allowed]} if "$ref" in allowed else dict(allowed)
            )  # beside $ref all is ignored
            properties[name]["description"] = docs.get(name, "")
            if parameter.default is not parameter.empty:
                properties[name]["default"] = _json(to_plain(parameter.default, self.registry))
        summary = (inspect.getdoc(cls) or "").split("\n")[0]
        required = [*head, *_required(cls)]
        mapping = {"type": "object", "description": summary, "properties": properties, "additionalProperties": False}
        by, others = getattr(cls, "filled_in", ("", ()))
        if others:
            rest = [name for name in required if name not in others]
            whole: dict[str, Any] = {}
            for name, component in getattr(cls, "filled_with", {}).items():
                typed = properties[name].pop("allOf")
                whole[name] = {"allOf": typed}
                properties[name]["anyOf"] = [*typed, self._changes(component)]
            arms = [{"required": required, "properties": whole}, {"required": [by, *rest]}]
            return mapping | {"anyOf": arms}
        return mapping | ({"required": required} if required else {})

    def _changes(self, name: str) -> dict[str, Any]:
        """A reference to parameters of a component that are changed, none of which is required."""

        def make() -> dict[str, Any]:
            mapping = self._mapping(self.registry.find(name, object), {})
            return {key: part for key, part in mapping.items() if key != "required"}

        return self._reference(f"{name} changes", make)

    def value(self, annotation: Any) -> dict[str, Any]:
        """What an annotation allows."""
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if schema.is_blueprint(annotation):
            return self._component(args[0])
        if is_component(annotation):
            return self._component(annotation)
        if schema.is_record(annotation):
            return self.record(annotation)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.value(arm) for arm in args]}
        if origin is tuple and Ellipsis not in args:
            parts = [self.value(part) for part in args]
            return {"type": "array", "items": parts, "minItems": len(parts), "maxItems": len(parts)}
        if origin in (tuple, list):
            return {"type": "array", "items": self.value(args[0])}
        if annotation is Path:
            return dict(_TEXT)
        try:
            plain = schema.validator(annotation).json_schema()
        except Exception:  # only Python can give it
            return {}
        return {key: part for key, part in plain.items() if key not in ("title", "default")}


_TEXT = {"type": "string"}


def _required(cls: type) -> list[str]:
    return [name for name, own in parameters(cls).items() if own.default is own.empty]


def _spelling(names: Sequence[str]) -> dict[str, Any]:
    """These names, which editors offer, and what differs from them in case and underscores only."""
    folded = ["_?".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in name) for name in names]
    return {"type": "string", "anyOf": [{"enum": list(names)}, {"pattern": f"^({'|'.join(folded)})$"}]}


def _json(value: Any) -> Any:
    """A default, but for numbers that JSON does not have, which are written as in YAML."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return str(value)
    return value
