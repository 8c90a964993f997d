"""`unidiff export`: a trained run as a pipeline of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AllowImports, AsJson, RunArgument

__all__ = ["export"]


def export(
    run: RunArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")] = False,
    allow_imports: AllowImports = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained run as a pipeline that plain diffusers loads."""
    from unidiff.cli.console import Console, say
    from unidiff.interop.diffusers.export import export as write

    with Console() as console:
        written = write(run, directory, overwrite=overwrite, allow_imports=allow_imports)
        for notice in written.notices:
            console.notice(notice)
    if as_json:
        print(json.dumps({"run": str(run), "directory": str(directory), "pipeline": written.pipeline}))
    elif written.pipeline is None:
        say(f"the network, without a pipeline: {directory}")
    else:
        say(f"diffusers.{written.pipeline}.from_pretrained({str(directory)!r})")
