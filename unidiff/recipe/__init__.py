"""Recipes: nested constructor arguments in a YAML file, checked against the constructors themselves.

The names are imported when they are first used: listing the shipped recipes must not cost an import of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unidiff.recipe.blueprint import Blueprint as Blueprint
    from unidiff.recipe.recipe import Recipe as Recipe
    from unidiff.recipe.recipe import load_recipe as load_recipe
    from unidiff.recipe.schema import signature_rows as signature_rows
    from unidiff.recipe.shipped import shipped_recipes as shipped_recipes

__all__ = ["Blueprint", "Recipe", "load_recipe", "shipped_recipes", "signature_rows"]

_HOMES = {
    "Blueprint": "blueprint",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "shipped_recipes": "shipped",
    "signature_rows": "schema",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unidiff.recipe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unidiff.recipe.{_HOMES[name]}"), name)
