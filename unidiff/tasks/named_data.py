"""The data that a word of the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unidiff.data.base import Dataset
from unidiff.errors import RecipeError
from unidiff.recipe.errors import nearest
from unidiff.recipe.read import read_recipe
from unidiff.recipe.registry import PUBLIC, kind_of
from unidiff.recipe.save import Record
from unidiff.run.directory import RunDirectory
from unidiff.run.shipped import locate
from unidiff.run.task import load_recipe

__all__ = ["named_data"]


@dataclass(frozen=True, kw_only=True)
class _Named(Record):
    data: Dataset


def named_data(name: str, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Dataset:
    """The data of a run or a recipe, without their autoencoder if there is one, or a data set by its own name.

    Args:
        name: A run directory, shipped:NAME, a recipe, or the name of a data set.
        overrides: Values to replace, as for `load_recipe`.
        allow_imports: Accept classes from outside unidiff.

    Raises:
        RecipeError: If it is none of them, or the recipe has no data.
    """
    if kind_of(PUBLIC.find(name, Dataset)) == "dataset":
        changes = [f"data={name}", *overrides]
        return read_recipe(_Named, "data", changes, allow_imports=allow_imports, text="").data
    run = RunDirectory(locate(name))
    try:
        task = load_recipe(run.recipe if run.exists() else name, overrides, allow_imports=allow_imports)
    except RecipeError as error:
        if "neither a file nor a shipped recipe" not in str(error):
            raise
        names = PUBLIC.choices(Dataset)
        problem = f"{name}: neither a run, a recipe nor a data set.{nearest(name, names)}"
        raise RecipeError(f"{problem}\nData sets: {', '.join(names)}.") from error
    data = getattr(task, "data", None)
    if data is None:
        raise RecipeError(f"{name}: this recipe has no data of its own; it is {task.noun}.")
    return data.images
