"""`unidiff inpaint`: complete an image with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

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
from unidiff.errors import require_whole

__all__ = ["inpaint"]


def inpaint(
    run: Annotated[Path, typer.Argument(help="A run directory of images.")],
    image: Annotated[Path, typer.Argument(help="An image, or an array .npy (C, H, W) in [-1, 1].")],
    mask: Annotated[Path, typer.Argument(help="An image of the same size: white is to be drawn, black is kept.")],
    count: Annotated[int | None, typer.Option(help="Number of samples; 8 if not given.")] = None,
    repeats: Annotated[int, typer.Option(help="RePaint: how often each ten steps are taken; 1 to replace only.")] = 1,
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
    """Complete an image: what the mask leaves black is kept exactly, what is white is drawn."""
    require_whole("--repeats", repeats, 1, 1000)
    import torch

    from unidiff.cli.editing import EditSession, read_image, read_mask
    from unidiff.cli.guidance_options import ConditionOptions
    from unidiff.editing.repaint import Resampling
    from unidiff.editing.sdedit import inpaint as complete
    from unidiff.errors import ParameterError, RunError
    from unidiff.solver.base import OneStep

    options = ConditionOptions.read(classes, guidance, classifier)
    altering = EditSession.load(run, overrides, count, device, allow_imports, out, array, options.apply)
    if altering.run.recipe.data.coded:
        remedy = "`unidiff edit` changes an image through them"
        raise RunError(f"{run} draws latents, and an autoencoder keeps no pixel exactly, as inpainting must; {remedy}.")
    given = read_image(image, altering.shape)
    free = read_mask(mask, image, altering.shape)
    solver = altering.sampling.solver
    if repeats > 1:
        try:
            solver = Resampling(cast(OneStep, solver), repeats)  # which checks that it has single steps
        except ParameterError as error:
            raise RunError(f"--repeats {repeats}: {error.problem}: --set sampling.solver=Ancestral.") from error
    shown = torch.where(free, 0.0, given)
    altering.draw(
        lambda denoiser, at, grid, seeds, progress, cond: complete(
            denoiser,
            given.to(at),
            ~free.to(at),
            solver,
            grid,
            seeds,
            batch=altering.sampling.batch,
            progress=progress,
            **cond,
        ),
        [given, shown],
        f"image, what was kept, then samples ({solver!r})",
        {"image": str(image), "mask": str(mask), "repeats": repeats, **options.chosen()},
        as_json,
    )
