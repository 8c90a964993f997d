"""Reading a recipe from a file, and naming the part of it that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from unidiff.errors import ParameterError
from unidiff.recipe.blueprint import Blueprint
from unidiff.recipe.build import Builder
from unidiff.recipe.last_release import as_now
from unidiff.recipe.overrides import apply_overrides
from unidiff.recipe.parameters import parameters
from unidiff.recipe.place import Node
from unidiff.recipe.registry import PUBLIC, Registry, is_component
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml

__all__ = ["inside", "read_recipe", "read_record"]

R = TypeVar("R")


def read_recipe(
    cls: type[R],
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    registry: Registry = PUBLIC,
    allow_imports: bool = False,
) -> R:
    """Read a record from a file and check all of it.

    Args:
        cls: The record.
        source: A path, or the name of a shipped recipe such as "ncsn_digits".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML. Later ones win.
        registry: What a `type` may name.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    return read_record(lambda builder, node: (cls, node), source, overrides, Builder(registry, allow_imports))


def read_record(
    choose: Callable[[Builder, Node], tuple[type[R], Node]],
    source: str | Path,
    overrides: Sequence[str],
    builder: Builder,
) -> R:
    """Read a record whose class `choose` tells from what is written; see `read_recipe`."""
    overrides = [overrides] if isinstance(overrides, str) else overrides
    name, text = read_source(source)
    written = read_yaml(text, name)
    home = _home(Path(source))
    builder = Builder(builder.registry, builder.allow_imports, home)
    cls, node = choose(builder, apply_overrides(written, overrides))
    if written.value is None and not overrides:
        raise written.at.error("", "the recipe is empty.", parameters(cls))
    return builder.record(cls, as_now(node, parameters(cls), in_run=home is not None))


def _home(path: Path) -> Path | None:
    """The run directory that a recipe lies in; None for any other recipe."""
    run = path.parent
    beside = (run / "manifest.json").is_file() or (run / "checkpoints").is_dir()
    return run if path.name == "recipe.yaml" and path.is_file() and beside else None


@contextmanager
def inside(part: str, value: object) -> Iterator[None]:
    """Put the path of a part in front of the parameter that it complains about."""
    try:
        yield
    except ParameterError as error:
        if path := _path_to(error.parameter, value):
            raise ParameterError(f"{part}.{path}", error.problem) from error
        problem = error.problem if error.parameter == part else str(error)
        raise ParameterError(part, problem) from error


def _path_to(parameter: str, value: object) -> str:
    """The path from a part to the one below it that has this parameter: `solver.step_size`; empty if none has."""
    known = parameters(value.kind if isinstance(value, Blueprint) else type(value))
    if parameter.split(".")[0] in known:
        return parameter
    for name in known:
        below = getattr(value, name, None)
        if is_component(type(below)) and (path := _path_to(parameter, below)):
            return f"{name}.{path}"
    return ""
