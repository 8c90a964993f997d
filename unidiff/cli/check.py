"""`unidiff check`: is this recipe valid?"""

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
    from unidiff.run.task import load_recipe

    task = load_recipe(recipe, overrides or [], allow_imports=allow_imports)
    if as_json:
        print(json.dumps({"recipe": task.to_dict(), **task.facts()}))
    else:
        print(f"{task.to_yaml()}# {task.verdict()}")
