"""`unidiff inpaint`: complete an image with a trained run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, cast

import typer

from unidiff.cli.options import EditOptions
from unidiff.errors import ParameterError, RunError, require_whole

__all__ = ["inpaint"]


def inpaint(
    options: EditOptions,
    region: Annotated[
        Path,
        typer.Argument(metavar="MASK", help="Image or .npy of the same size: white (1, true): sampled, black: kept."),
    ],
    repeats: Annotated[int, typer.Option(help="RePaint: repeats of each ten steps; 1 is plain replacement.")] = 1,
) -> None:
    """Inpaint an image: pixels that are black in the mask are kept exactly, white ones are sampled."""
    require_whole("--repeats", repeats, 1, 1000)
    options.output.keep(region)
    import torch

    from unidiff.cli.editing import EditSession
    from unidiff.data.user_image import read_image, read_mask
    from unidiff.editing.repaint import Resampling
    from unidiff.editing.sdedit import inpaint as complete
    from unidiff.solver.base import OneStep

    session = EditSession.load(options)
    data, solver = session.run.recipe.data, session.run.recipe.sampling.solver
    if data.coded:
        problem = "this is a latent model, whose autoencoder does not preserve the known pixels exactly"
        raise RunError(f"{options.run}: {problem}. Use `unidiff edit`, which works on latents.")
    x0 = read_image(options.image, data.shape)
    free = read_mask(region, options.image, data.shape)
    if repeats > 1:
        try:
            solver = Resampling(cast(OneStep, solver), repeats)  # which checks that it has single steps
        except ParameterError as error:
            raise RunError(f"--repeats {repeats}: {error.problem}: --solver ancestral.") from error

    session.write(
        functools.partial(complete, session.denoiser, x0.to(session.device), ~free.to(session.device), solver),
        [x0, torch.where(free, 0.0, x0)],
        solver,
        "image, what was kept, then samples",
        {"mask": str(region), "repeats": repeats},
    )
