"""`unidiff schema`: the JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.cached import cached
from unidiff.cli.console import say
from unidiff.errors import RunFailed
from unidiff.writable import require_file

__all__ = ["schema"]

_HEAD = b'{\n "$schema": "http://json-schema.org/draft-07/schema#",\n "title": "A recipe of unidiff"'


def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="File of the schema [default: standard output].")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of another kind.")] = False,
) -> None:
    """Print the JSON schema of recipes, from which editors complete and check them."""
    if out is not None:
        require_file(out, "--out", {} if overwrite else {"a schema that unidiff wrote": _HEAD})
    text = json.dumps(cached("schema", "recipes", _made), indent=1)
    if out is None:
        print(text)
        return
    from unidiff.files import whole_file

    try:
        with whole_file(out) as partial:
            partial.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise RunFailed(f"{error}. Choose another file with --out.") from error
    say(f"{out}: `# yaml-language-server: $schema={out}` in the first line of a recipe tells editors of it.")


def _made() -> dict[str, Any]:
    from unidiff.recipe.json_schema import json_schema
    from unidiff.run.task import shipped_tasks

    return json_schema(shipped_tasks())
