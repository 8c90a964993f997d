"""`unidiff new`: a first recipe for one's own images."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.console import say
from unidiff.errors import RunError, RunFailed, require_whole

__all__ = ["new"]


def new(
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="The folder of the images [default: asks in a terminal].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="The recipe to write [default: FOLDER's name.yaml].")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Height and width of the model's images [default: 8, 16 or 32 by the images].")
    ] = None,
    colour: Annotated[
        bool | None, typer.Option("--colour/--grey", help="Colour or grey images [default: as the images are].")
    ] = None,
    classes: Annotated[
        bool | None,
        typer.Option("--classes/--no-classes", help="Condition on the subfolders' names [default: if there are any]."),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Train on mirror images, too.")] = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
) -> None:
    """Write a small recipe for a folder of your images: looks at their sizes, colours and subfolders."""
    require_whole("--steps", steps, 1, 100_000_000)
    if size is not None:
        require_whole("--size", size, 8, 8192)
    asks = folder is None
    if folder is None:
        if not sys.stdin.isatty():
            raise RunError("FOLDER: missing. Name the folder of your images, as in `unidiff new photos`.")
        folder = str(typer.prompt("Folder of the images")).strip()
    from unidiff.errors import RecipeError
    from unidiff.files import whole_file
    from unidiff.run.task import recipe_as_it_was
    from unidiff.tasks.own_images import own_recipe, survey

    name = re.sub(r"[^\w.-]+", "_", os.path.basename(os.path.abspath(folder))) or "images"
    path = out if out is not None else Path(f"{name}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise RunError(f"--out {path}: a recipe is a file .yaml.")
    if os.path.lexists(path):
        raise RunError(f"{path}: there is a file of this name, which is not overwritten. Name another one with --out.")
    found = survey(folder)
    if asks:
        say(found.text())
        if size is None:
            size = int(typer.prompt("Height and width of the model's images", found.size, type=int))
            require_whole("size", size, 8, 8192)
        if found.classes and classes is None:
            classes = typer.confirm("Condition the model on the classes?", default=True)
    if classes and not found.classes:
        raise RunError(f"--classes: not every image of {folder} lies in a subfolder. Leave it out.")
    size = found.size if size is None else size
    text = own_recipe(
        found,
        size=size,
        channels=3 if (not found.grey if colour is None else colour) else 1,
        flip=flip,
        classes=found.classes if classes is None or classes else (),
        steps=steps,
        name=path.stem,
    )
    try:
        verdict = recipe_as_it_was(path, text, False).verdict()
    except RecipeError as error:
        remedy = "Choose a multiple of 16.\n" if size % 16 else ""
        raise RunError(f"--size {size}: the recipe would not be valid. {remedy}{error}") from error
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFailed(f"{error}. Choose another file with --out.") from error
    if not asks:
        say(found.text())
    say(f"{path}: {size} x {size} pixels. {verdict}")
    say(f"Next: `unidiff run {path} --dry-run` says how long it takes, `unidiff run {path}` trains it.")
