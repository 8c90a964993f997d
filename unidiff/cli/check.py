"""`unidiff check`: is this recipe right?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from unidiff.cli.options import AllowImports, AsJson, Overrides

__all__ = ["check"]


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Check a recipe whole, without reading data or making weights, and print it resolved."""
    from unidiff.recipe import load_recipe
    from unidiff.recipe.shipped import recipe_command

    command = recipe_command(recipe)
    if command == "evolve":
        from unidiff.run.evolving import load_evolving

        evolving = load_evolving(recipe, overrides or [], allow_imports=allow_imports)
        if as_json:
            print(json.dumps({"recipe": evolving.to_dict()}))
        else:
            print(evolving.to_yaml(), end="")
            print("# This recipe is right. It trains nothing: `unidiff run` solves its equation.")
        return
    if command == "compare":
        from unidiff.run.comparing import load_comparing

        comparing = load_comparing(recipe, overrides or [], allow_imports=allow_imports)
        if as_json:
            print(json.dumps({"recipe": comparing.to_dict()}))
        else:
            print(comparing.to_yaml(), end="")
            print("# This recipe is right. It trains nothing: it is one for `unidiff compare`.")
        return
    if command == "classify":
        from unidiff.run.classifying import load_classifying

        load_recipe = load_classifying  # type: ignore[assignment]
    if command == "code":
        from unidiff.run.coding import load_coding

        load_recipe = load_coding  # type: ignore[assignment]
    loaded = load_recipe(recipe, overrides or [], allow_imports=allow_imports)
    if as_json:
        print(json.dumps({"recipe": loaded.to_dict(), "parameters": loaded.count_weights()}))
    else:
        print(loaded.to_yaml(), end="")
        print(f"# This recipe is right. Its network has {loaded.count_weights():,} parameters.")
