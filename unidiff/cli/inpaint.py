"""`unidiff inpaint`: complete a picture with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AllowImports, AsJson, Device, Overrides
from unidiff.errors import require_whole

__all__ = ["inpaint"]


def inpaint(
    run: Annotated[Path, typer.Argument(help="A run directory of images.")],
    image: Annotated[Path, typer.Argument(help="A picture, or an array .npy (C, H, W) in [-1, 1].")],
    mask: Annotated[Path, typer.Argument(help="A picture of the same size: white is to be drawn, black is kept.")],
    count: Annotated[int | None, typer.Option(help="Number of samples; 8 if not given.")] = None,
    repeats: Annotated[int, typer.Option(help="RePaint: how often each ten steps are taken; 1 to replace only.")] = 1,
    overrides: Overrides = None,
    array: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Write the samples: float32, (N, C, H, W), in [-1, 1].")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write the picture here.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Complete a picture: what the mask leaves black is kept exactly, what is white is drawn."""
    require_whole("--repeats", repeats, 1, 1000)
    import torch

    from unidiff.cli.editing import EditSession, read_image, read_mask
    from unidiff.editing.repaint import Resampling
    from unidiff.editing.sdedit import inpaint as complete
    from unidiff.errors import RunError
    from unidiff.solver.base import OneStep

    altering = EditSession.load(run, overrides, count, device, allow_imports, out, array)
    if altering.run.recipe.data.coded:
        remedy = "`unidiff edit` changes a picture through them"
        raise RunError(f"{run} draws latents, and a codec keeps no pixel exactly, as inpainting promises; {remedy}.")
    given = read_image(image, altering.shape)
    free = read_mask(mask, image, altering.shape)
    solver = altering.sampling.solver
    if repeats > 1:
        if not isinstance(solver, OneStep):
            remedy = "Add --set sampling.solver=Ancestral."
            problem = f"{type(solver).__name__} has no single step that could be taken again"
            raise RunError(f"--repeats {repeats}: {problem}. {remedy}")
        solver = Resampling(solver, repeats)
    shown = torch.where(free, 0.0, given)
    altering.draw(
        lambda denoiser, at, grid, seeds, progress: complete(
            denoiser,
            given.to(at),
            ~free.to(at),
            solver,
            grid,
            seeds,
            batch=altering.sampling.batch,
            progress=progress,
        ),
        [given, shown],
        f"picture, what was kept, then samples ({solver!r})",
        {"image": str(image), "mask": str(mask), "repeats": repeats},
        as_json,
    )
