"""Nodes -> objects: every key is checked against the constructor it is meant for, then the constructor is called."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

from pydantic import ValidationError

from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, RecipeError, UnidiffError
from unidiff.recipe import schema
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.parameters import parameters
from unidiff.recipe.place import Node
from unidiff.recipe.refusal import join, nearest, rejection, written
from unidiff.recipe.registry import PUBLIC, Registry, an, is_component, kind_of, noun, same_name
from unidiff.renamed import RENAMED, renamed_parameters

__all__ = ["Builder"]

R = TypeVar("R")


@dataclass(frozen=True)
class Builder:
    """Makes objects from the nodes of a recipe.

    Args:
        registry: What a `type` may name.
        allow_imports: Whether a `type` may also be `module:Class`, which runs the code of that module.
        home: The run directory that the recipe was read from, which may keep what its data need; None for any other.
    """

    registry: Registry = PUBLIC
    allow_imports: bool = False
    home: Path | None = None

    def record(self, cls: type[R], node: Node, key: str = "") -> R:
        """Make a record, such as the recipe itself or its training section, from a mapping without `type`."""
        if not isinstance(node.value, dict):
            raise node.at.error(key, f"expected a mapping, got {written(node)}", parameters(cls))
        made: R = self._construct(cls, self._arguments(cls, node.value, node, key), node, key)
        return made

    def component(self, base: type, node: Node, key: str) -> Any:
        """Make a component from `{type: Name, ...}` or a bare name."""
        cls, arguments = self._component(base, node, key)
        return self._construct(cls, arguments, node, key)

    def _component(self, base: type, node: Node, key: str) -> tuple[type, dict[str, Any]]:
        article = an(noun(base))
        if isinstance(node.value, str):
            short: type = self.named(base, node, key)
            return short, self._arguments(short, {}, node, key)
        if not isinstance(node.value, dict):
            problem = f"expected {article}, as a name or as {{type: NAME, ...}}, got {written(node)}"
            raise node.at.error(key, problem, self.registry.choices(base))
        if "type" not in node.value:
            problem = f"missing required key 'type' (the name of {article})"
            raise node.at.error(key, problem, [f"type: {name}" for name in self.registry.choices(base)])
        cls: type = self.named(base, node.value["type"], f"{key}.type")
        rest = {name: child for name, child in node.value.items() if name != "type"}
        return cls, self._arguments(cls, rest, node, key)

    def named(self, base: type[R], node: Node, key: str) -> type[R]:
        """The class below `base` that a `type` names: a public one, or `module:Class` where that is allowed."""
        article = an(noun(base))
        if not isinstance(node.value, str):
            problem = f"expected the name of {article}, got {written(node)}"
            raise node.at.error(key, problem, self.registry.choices(base))
        name = node.value
        foreign = ":" in name or "." in name
        value = self._imported(node, key) if foreign else self.registry.find(name, base)
        for old, new in RENAMED.items():
            if same_name(old, name) and getattr(value, "__name__", None) == new:
                warnings.warn(f"{node.at.source.name}: {old} is now called {new}.", DeprecationWarning, stacklevel=2)
        if value is None:
            choices = self.registry.choices(base)
            problem = f"unknown {noun(base)} {name!r}.{nearest(name, choices)}"
            raise node.at.error(key, problem, choices)
        if not (isinstance(value, type) and issubclass(value, base)):
            kind = kind_of(value)
            problem = f"expected {article}, got {name}{f', {an(kind)}' if kind else ''}"
            raise node.at.error(key, problem, self.registry.choices(base))
        if inspect.isabstract(value):
            problem = f"{name} is abstract; choose one of its subclasses"
            raise node.at.error(key, problem, self.registry.choices(base))
        return value

    def _imported(self, node: Node, key: str) -> Any:
        module, colon, name = str(node.value).partition(":")
        if not self.allow_imports:
            problem = (
                f"{node.value} is not part of unidiff, and loading it would run its code. If you trust it, pass "
                "--allow-imports on the command line, or allow_imports=True to load_recipe."
            )
            raise node.at.error(key, problem)
        if not colon:
            raise node.at.error(key, f"write a class from outside unidiff as module:Class, got {written(node)}")
        try:
            value = importlib.import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        except Exception as error:  # anything at all can go wrong while foreign code is imported
            problem = f"{node.value} cannot be imported ({type(error).__name__}: {error}). Is it on PYTHONPATH?"
            raise node.at.error(key, problem) from error
        return value

    def _arguments(self, cls: type, children: dict[str, Node], node: Node, key: str) -> dict[str, Any]:
        children = self._present_names(cls, children, key)
        plain = {name: child.plain() for name, child in children.items()}
        try:
            values = schema.written(schema.plain_model(cls).model_validate(plain))
        except ValidationError as error:
            raise rejection(cls, children, node, key, error) from None
        for name, parameter in parameters(cls).items():
            if name in children and schema.is_structured(parameter.annotation):
                values[name] = self._structured(parameter.annotation, children[name], join(key, name))
        return values

    def _structured(self, annotation: Any, node: Node, key: str) -> Any:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if is_component(annotation):
            return self.component(annotation, node, key)
        if schema.is_blueprint(annotation):
            return Blueprint(*self._component(args[0], node, key))
        if schema.is_record(annotation):
            return self.record(annotation, node, key)
        if origin in (Union, types.UnionType):
            if node.value is None and type(None) in args:
                return None
            if isinstance(node.value, str) and str in args:  # a short form, which the class itself reads
                return node.value
            return self._structured(next(arm for arm in args if schema.is_structured(arm)), node, key)
        if origin in (tuple, list):
            if not isinstance(node.value, list):
                raise node.at.error(key, f"expected {schema.phrase(annotation)}, got {written(node)}")
            return origin(self._structured(args[0], part, f"{key}[{i}]") for i, part in enumerate(node.value))
        raise TypeError(f"{key}: a recipe cannot express the annotation {annotation}")

    def _construct(self, cls: type, arguments: dict[str, Any], node: Node, key: str) -> Any:
        try:
            made = cls(**arguments)
            return self._at_home(made, node) if isinstance(made, Dataset) else made
        except RecipeError:
            raise
        except ParameterError as error:
            parts = error.parameter.split(".")
            reached = node.reach(parts)
            known = parts[0] in parameters(cls)
            place = node.at if reached is node else reached.at
            if known:
                raise place.error(join(key, error.parameter), error.problem) from error
            raise place.error(key, error.problem if error.parameter == key else str(error)) from error
        except (UnidiffError, ValueError, TypeError) as error:
            raise node.at.error(key, f"{cls.__name__} cannot be made: {error}") from error

    def _at_home(self, data: Dataset, node: Node) -> Dataset:
        """With what the run directory keeps, unless an override names anew what that stands for."""
        if self.home is None or (data.replaced and node.reach([data.replaced]).place.source.is_override):
            return data
        return data.kept_in(self.home)

    def _present_names(self, cls: type, children: dict[str, Node], key: str) -> dict[str, Node]:
        """The children under the names that parameters have now; of both names, an override of the old one wins."""
        renamed = renamed_parameters(cls)
        present = {name: child for name, child in children.items() if name not in renamed}
        for old in renamed.keys() & children.keys():
            new, child = renamed[old], children[old]
            if new in present and not child.at.source.is_override:
                problem = f"this is the old name of {new!r}, which is there as well. Remove it."
                raise child.at.error(join(key, old), problem)
            if self.home is None:  # the recipe of a run stays as it is
                notice = f"{child.at.source.name}: the key {join(key, old)!r} is now called {new!r}."
                warnings.warn(notice, DeprecationWarning, stacklevel=2)
            present[new] = child
        return present
