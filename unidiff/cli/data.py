"""`unidiff data`: what a data set holds, and samples of it as files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli import completion
from unidiff.cli.console import say
from unidiff.cli.options import AllowImports, AsJson, Overrides
from unidiff.cli.output import place_of
from unidiff.errors import RecipeError, RunError, RunFailed, require, require_whole
from unidiff.text import count_of
from unidiff.writable import require_file, require_writable

__all__ = ["data"]

_KINDS = {".png": {"a PNG image": b"\x89PNG\r\n\x1a\n"}, ".npy": {"a .npy array": b"\x93NUMPY"}}


def data(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set, such as Digits or MNIST; or what has data: a run, shipped:NAME, a recipe.",
            autocompletion=completion.data,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="Write samples: a file .png or .npy of one, or a folder.")
    ] = None,
    index: Annotated[int, typer.Option(help="Number of the first sample, from 0.")] = 0,
    count: Annotated[int, typer.Option(help="Number of samples; more than one need a folder.")] = 1,
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    size: Annotated[int | None, typer.Option(help="Height and width in pixels; shorthand for --set data.size.")] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a mask for inpaint, .png or .npy: white in the middle."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace images and arrays that are there.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Show what a data set holds, or write samples of it as files, to try edit and inpaint with."""
    require(split in ("test", "train"), "--split", split, "test or train")
    require_whole("--index", index, 0, 2**62)
    require_whole("--count", count, 1, 100_000)
    one = out is not None and out.suffix in _KINDS
    if out is not None and out.suffix and not one:
        raise RunError(f"--out {out}: name a file .png or .npy, or a folder.")
    if one and count > 1:
        raise RunError(f"--out {out}: a file holds one sample. Name a folder for --count {count}.")
    if out is not None and mask is not None and place_of(out) == place_of(mask):
        raise RunError(f"--mask {mask}: --out writes to this file. Name another one for the mask.")
    if mask is not None and mask.suffix not in _KINDS:
        raise RunError(f"--mask {mask}: name a file .png or .npy.")
    import torch

    from unidiff.data.export import centre_mask, is_image, write_sample
    from unidiff.tasks.named_data import named_data

    changes = [*(overrides or ()), *([] if size is None else [f"data.size={size}"])]
    try:
        dataset = named_data(name, changes, allow_imports=allow_imports)
    except RecipeError as error:
        raise RecipeError(str(error).replace(f"--set data.size={size}: data.size", f"--size {size}")) from error
    shape = dataset.shape
    if len(shape) < 2 and mask is not None:
        raise RunError(f"--mask {mask}: samples of shape {shape} cannot be inpainted. Leave it out.")
    image = is_image(shape)
    for option, path in (("--out", out), ("--mask", mask)):
        if path is not None and path.suffix == ".png" and not image:
            raise RunError(f"{option} {path}: samples of shape {shape} are not images. Name a file .npy.")
        if path is not None and path.suffix in _KINDS:
            require_file(path, option, _KINDS[path.suffix], "Choose another file.")
            _require_new(path, option, overwrite)
    if out is not None and not one:
        require_writable(out)
    source = dataset.open(split)
    if source.sequential:
        raise RunError(f"{name}: its samples can be read only in order, and have no number. Choose other data.")
    require_whole("--index", index, 0, len(source) - 1)
    require(index + count <= len(source), "--count", count, f"at most {len(source) - index} from --index {index}")
    rows = list(range(index, index + count)) if out is not None else []
    name, end = source.name.replace(" ", "-").lower(), ".png" if image else ".npy"
    files = [out if one else out / f"{name}-{row:05d}{end}" for row in rows if out is not None]
    for path in files:
        _require_new(path, "--out", overwrite)
    try:
        for row, path in zip(rows, files):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_sample(source.batch(torch.tensor([row]))[0], path)
        if mask is not None:
            write_sample(centre_mask(shape) if mask.suffix == ".png" else centre_mask(shape)[0] > 0, mask)
    except OSError as error:
        raise RunFailed(f"{error}. Choose another place with --out.") from error
    labels = None if source.labels is None else [int(source.labels[row]) for row in rows]
    classes = source.class_names
    if as_json:
        facts = {"name": source.name, "count": len(source), "shape": list(shape), "classes": classes, "labels": labels}
        facts |= {"checksum": source.checksum, "stand_in": source.stand_in, "files": [str(path) for path in files]}
        print(json.dumps({**facts, "mask": mask and str(mask)}))
        return
    if source.stand_in:
        say(f"Note: {source.stand_in}", error=True)
    named = f", {len(classes)} class{'es' * (len(classes) > 1)}: {', '.join(classes)}" if classes else ""
    say(f"{source.name}: {count_of(len(source), 'sample')} of shape {shape}{named}")
    for position, path in enumerate(files):
        of = "" if labels is None else f" (class {classes[labels[position]] if classes else labels[position]})"
        say(f"{path}: sample {rows[position]}{of}")
    if mask is not None:
        say(f"{mask}: mask for `unidiff inpaint`, white in the middle")


def _require_new(path: Path, option: str, overwrite: bool) -> None:
    """Raise a RunError for a file that is there, unless it may be replaced."""
    if not overwrite and os.path.lexists(path):
        raise RunError(f"{option} {path}: there is a file of this name. Replace it with --overwrite, or name another.")
