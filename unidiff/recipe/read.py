"""Reading a recipe from a file, with overrides such as `--set training.steps=20`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from unidiff.errors import DataError, ParameterError, RecipeError
from unidiff.recipe.blueprint import Blueprint, parameters
from unidiff.recipe.build import Builder
from unidiff.recipe.migrate import migrate
from unidiff.recipe.node import Node
from unidiff.recipe.registry import PUBLIC, Registry, is_component
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml

__all__ = ["inside", "read_recipe"]

R = TypeVar("R")


def read_recipe(
    cls: type[R],
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    choose: Callable[[Builder, Node], tuple[type[R], Node]] | None = None,
    registry: Registry = PUBLIC,
    allow_imports: bool = False,
    text: str | None = None,
) -> R:
    """Read a record from a file and check all of it.

    Args:
        cls: The record.
        source: A path, or the name of a shipped recipe such as "ncsn_digits".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML. Later ones win.
        choose: Takes the class, one below `cls`, and its node from what is written; None for `cls` and all of it.
        registry: What a `type` may name.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.
        text: What was in the file, in place of what is.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    overrides = [overrides] if isinstance(overrides, str) else overrides
    written = f"{source} as it was" if os.path.lexists(source) else str(source)
    name, text = read_source(source) if text is None else (written, text)
    recipe = read_yaml(text, name)
    run = _run_directory(Path(source))
    builder = Builder(registry, allow_imports, run)
    node = _override(recipe, overrides)
    if choose is not None:
        cls, node = choose(builder, node)
    if recipe.value is None and not overrides:
        raise recipe.at.error("", "the recipe is empty.", parameters(cls))
    return builder.record(cls, migrate(node, parameters(cls), in_run=run is not None))


def _run_directory(path: Path) -> Path | None:
    """The run directory that a recipe lies in; None for any other recipe."""
    run = path.parent
    beside = os.path.isfile(run / "manifest.json") or os.path.isdir(run / "checkpoints")
    return run if path.name == "recipe.yaml" and os.path.isfile(path) and beside else None


def _override(recipe: Node, overrides: Sequence[str]) -> Node:
    """The recipe with values replaced or added, whose location is the override; later ones win."""
    for override in overrides:
        name = f"--set {override}"
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise RecipeError(f"{name}: write KEY=VALUE, such as --set training.steps=20.")
        if not text.strip():
            raise RecipeError(f"{name}: missing value after '='. Write null for none.")
        value = read_yaml(text, name, show=False)
        recipe = _replaced(recipe, path, Node(value.value, value.location, value.location), [])
    return recipe


def _replaced(node: Node, path: list[str], new: Node, above: list[str]) -> Node:
    if not path:
        return new
    first, *rest = path
    if not (node.value is None or isinstance(node.value, dict) or (isinstance(node.value, str) and above)):
        what = "a list; set it as a whole" if isinstance(node.value, list) else f"{node.value!r}, which has no keys"
        raise new.location.error(".".join([*above, first]), f"{'.'.join(above) or 'the recipe'} is {what}.")
    children = node.children()
    child = children.get(first) or Node(None, new.location, new.location)
    return Node({**children, first: _replaced(child, rest, new, [*above, first])}, node.location, node.key)


@contextmanager
def inside(part: str, value: object) -> Iterator[None]:
    """Prefix the parameter of a ParameterError, or of a DataError, with the path of the part that has it."""
    try:
        yield
    except ParameterError as error:
        if path := _path_to(error.parameter, value):
            raise ParameterError(f"{part}.{path}", error.problem) from error
        problem = error.problem if error.parameter == part else str(error)
        raise ParameterError(part, problem) from error
    except DataError as error:
        parameter, colon, problem = str(error).partition(": ")
        path = _path_to(parameter, value) if colon else ""
        raise type(error)(f"{part}.{path}: {problem}" if path else f"{part}: {error}") from error


def _path_to(parameter: str, value: object) -> str:
    """The path from a part to the one below it that has this parameter: `solver.step_size`; empty if none has."""
    keys = parameters(value.kind if isinstance(value, Blueprint) else type(value))
    if parameter.split(".")[0] in keys:
        return parameter
    for name in keys:
        below = getattr(value, name, None)
        if is_component(type(below)) and (path := _path_to(parameter, below)):
            return f"{name}.{path}"
    return ""
