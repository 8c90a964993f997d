"""Nodes -> objects: every key is checked against the constructor it is meant for, then the constructor is called."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import re
import sys
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
from unidiff.recipe.blueprint import Blueprint, parameters
from unidiff.recipe.errors import as_written, gathered, invalid_value, join, nearest, unknown_key
from unidiff.recipe.migrate import current_keys
from unidiff.recipe.node import Node
from unidiff.recipe.registry import PUBLIC, Registry, an, is_component, kind_of, new_name, noun

__all__ = ["Builder"]

R = TypeVar("R")


@dataclass(frozen=True)
class Builder:
    """Makes objects from the nodes of a recipe.

    Args:
        registry: What a `type` may name.
        allow_imports: Whether a `type` may also be `module:Class`, which runs the code of that module.
        run: The run directory that the recipe was read from, which may keep what its data need; None for any other.
    """

    registry: Registry = PUBLIC
    allow_imports: bool = False
    run: Path | None = None

    def record(self, cls: type[R], node: Node, key: str = "") -> R:
        """Make a record, such as the recipe itself or its training section, from a mapping without `type`."""
        if not isinstance(node.value, dict):
            raise node.at.error(key, f"expected a mapping, got {as_written(node)}", parameters(cls))
        made: R = self._construct(cls, self._arguments(cls, node.value, node, key), node, key)
        return made

    def _component(self, base: type, node: Node, key: str) -> tuple[type, dict[str, Any]]:
        """The class and the arguments that a bare name or `{type: Name, ...}` stands for."""
        if isinstance(node.value, str):
            cls: type = self.named(base, node, key)
            return cls, self._arguments(cls, {}, node, key)
        article = an(noun(base))
        if not isinstance(node.value, dict):
            problem = f"expected {article}, as a name or as {{type: NAME, ...}}, got {as_written(node)}"
            raise node.at.error(key, problem, self.registry.choices(base))
        if "type" not in node.value:
            problem = f"missing required key 'type' (the name of {article})"
            raise node.at.error(key, problem, [f"type: {name}" for name in self.registry.choices(base)])
        cls = self.named(base, node.value["type"], f"{key}.type")
        rest = {name: child for name, child in node.value.items() if name != "type"}
        return cls, self._arguments(cls, rest, node, key)

    def named(self, base: type[R], node: Node, key: str) -> type[R]:
        """The class below `base` that a `type` names: a public one, or `module:Class` where that is allowed."""
        name = node.value
        if not isinstance(name, str):
            problem = f"expected the name of {an(noun(base))}, got {as_written(node)}"
            raise node.at.error(key, problem, self.registry.choices(base))
        value = self._imported(name, node, key) if ":" in name or "." in name else self.registry.find(name, base)
        if value is not None and self.run is None and (new := new_name(name, base)):
            warnings.warn(f"{node.at.source.name}: {name} is now called {new}.", DeprecationWarning, stacklevel=2)
        if value is None:
            problem = f"unknown {noun(base)} {name!r}.{nearest(name, self.registry.choices(base))}"
        elif not (isinstance(value, type) and issubclass(value, base)):
            actual = kind_of(value)
            problem = f"expected {an(noun(base))}, got {name}{f', {an(actual)}' if actual else ''}"
        elif inspect.isabstract(value):
            problem = f"{name} is abstract; choose one of its subclasses"
        else:
            return value
        raise node.at.error(key, problem, self.registry.choices(base))

    def _imported(self, written: str, node: Node, key: str) -> Any:
        module, colon, name = written.partition(":")
        if not self.allow_imports:
            problem = (
                f"{written} is not part of unidiff, and loading it would run its code. If you trust it, pass "
                "--allow-imports on the command line, or allow_imports=True in Python."
            )
            raise node.at.error(key, problem)
        if not colon:
            raise node.at.error(key, f"write a class from outside unidiff as module:Class, got {written!r}")
        if "" not in sys.path and os.getcwd() not in sys.path:  # as `python -m unidiff` has it, behind all else
            sys.path.append(os.getcwd())
        try:
            return operator.attrgetter(name)(importlib.import_module(module))
        except Exception as error:  # anything at all can go wrong while foreign code is imported
            problem = f"{written} cannot be imported ({type(error).__name__}: {error}). Is it here or on PYTHONPATH?"
            raise node.at.error(key, problem) from error

    def _arguments(self, cls: type, children: dict[str, Node], node: Node, key: str) -> dict[str, Any]:
        keys, children = parameters(cls), current_keys(cls, children, key, in_run=self.run is not None)
        unknown = {name: child for name, child in children.items() if name not in keys}
        problems = [unknown_key(cls, name, child, node, key) for name, child in unknown.items()]
        meant = "".join(nearest(name, keys) for name in unknown)  # an unknown key is often a misspelt required one
        for name, parameter in keys.items():
            if name not in children and parameter.default is parameter.empty and repr(name) not in meant:
                problem = f"missing required key ({schema.phrase(parameter.annotation)})"
                problems.append(node.at.error(join(key, name), problem, keys))
        written = [(name, parameter.annotation) for name, parameter in keys.items() if name in children]
        arguments = {}
        for name, annotation in written:
            try:
                arguments[name] = self._value(annotation, children[name], join(key, name))
            except RecipeError as error:
                problems.append(error)
        if problems:
            raise gathered(problems)
        return arguments

    def _value(self, annotation: Any, node: Node, key: str) -> Any:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if not schema.is_structured(annotation):
            try:
                return schema.validator(annotation).validate_python(node.plain())
            except ValidationError as error:
                raise invalid_value(annotation, node, key, error.errors()[0]["loc"]) from None
        if is_component(annotation):
            return self._construct(*self._component(annotation, node, key), node, key)
        if schema.is_blueprint(annotation):
            return Blueprint(*self._component(args[0], node, key))
        if schema.is_record(annotation):
            return self.record(annotation, node, key)
        if origin in (Union, types.UnionType):
            if node.value is None and type(None) in args:
                return None
            if isinstance(node.value, str) and str in args:  # a short form, which the class itself reads
                return node.value
            arms = [arm for arm in args if schema.is_structured(arm)]
            several = [arm for arm in arms if typing.get_origin(arm) in (tuple, list)]
            return self._value((several if several and isinstance(node.value, list) else arms)[0], node, key)
        if origin in (tuple, list):
            if not isinstance(node.value, list):
                raise invalid_value(annotation, node, key)
            return origin(self._value(args[0], part, f"{key}[{i}]") for i, part in enumerate(node.value))
        raise TypeError(f"{key}: a recipe cannot express the annotation {annotation}")

    def _construct(self, cls: type, arguments: dict[str, Any], node: Node, key: str) -> Any:
        try:
            made = cls(**arguments)
            return self._with_kept_files(made, node) if isinstance(made, Dataset) else made
        except RecipeError:
            raise
        except ParameterError as error:
            path = re.findall(r"[^.\[\]]+", error.parameter)
            if path[0] in parameters(cls):
                raise node.reach(path).at.error(join(key, error.parameter), error.problem) from error
            raise node.at.error(key, error.problem if error.parameter == key else str(error)) from error
        except (UnidiffError, ValueError, TypeError) as error:
            raise node.at.error(key, f"{cls.__name__} cannot be built: {error}") from error

    def _with_kept_files(self, data: Dataset, node: Node) -> Dataset:
        """The data with what the run directory keeps, unless an override names a replacement."""
        if self.run is None or (data.replaced and node.reach([data.replaced]).location.source.is_override):
            return data
        return data.kept_in(self.run)
