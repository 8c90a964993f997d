"""`unidiff edit`: change an image with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import (
    AllowImports,
    Array,
    AsJson,
    Classes,
    Classifier,
    Device,
    Guidance,
    Overrides,
    Picture,
)
from unidiff.errors import require

__all__ = ["edit"]


def edit(
    run: Annotated[Path, typer.Argument(help="A run directory of images.")],
    image: Annotated[Path, typer.Argument(help="An image, or an array .npy (C, H, W) in [-1, 1].")],
    strength: Annotated[float, typer.Option(help="From 0, the image itself, to 1, a sample of the model.")] = 0.6,
    strengths: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="An image of the same size that multiplies strength.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Number of samples; 8 if not given.")] = None,
    classes: Classes = None,
    guidance: Guidance = None,
    classifier: Classifier = None,
    overrides: Overrides = None,
    array: Array = None,
    out: Picture = None,
    device: Device = "auto",
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Change an image: noise to the time t = strength, then denoise."""
    require(0 <= strength <= 1, "--strength", strength, "a number from 0 (the image) to 1 (a sample)")
    import torch

    from unidiff.cli.editing import EditSession, read_image, read_map
    from unidiff.cli.guidance_options import ConditionOptions
    from unidiff.editing.sdedit import edit as change

    options = ConditionOptions.read(classes, guidance, classifier)
    altering = EditSession.load(run, overrides, count, device, allow_imports, out, array, options.apply)
    given = read_image(image, altering.shape)
    spread = torch.tensor(strength, dtype=torch.float64)
    if strengths is not None:
        spread = strength * read_map(strengths, image, altering.shape)
    data = altering.run.recipe.data
    if spread.ndim:  # a map, on the pixels of the image: on those of a latent, its mean
        spread = torch.nn.functional.adaptive_avg_pool2d(spread[None], (data.shape[1], data.shape[2]))[0]
    solver = altering.sampling.solver
    altering.draw(
        lambda denoiser, at, grid, seeds, progress, cond: change(
            denoiser,
            data.encode(given[None].to(at))[0],
            spread,
            solver,
            grid,
            seeds,
            latent=data.coded,
            batch=altering.sampling.batch,
            progress=progress,
            **cond,
        ),
        [given],
        f"image, then edits of strength {strength:g} ({solver!r})",
        {"image": str(image), "strength": strength, "map": strengths and str(strengths), **options.chosen()},
        as_json,
    )
