"""`unidiff push`: an exported model to the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AsJson

__all__ = ["push"]


def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that unidiff export wrote.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The model on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="A model that is created is private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload an exported model to the Hugging Face hub, with the account of `hf auth login`."""
    from unidiff.interop.diffusers.push import push as upload

    address = upload(directory, name, private=private)
    print(json.dumps({"directory": str(directory), "name": name, "address": address}) if as_json else address)
