"""`unidiff edit`: change an image with a trained run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import EditOptions
from unidiff.errors import require

__all__ = ["edit"]


def edit(
    options: EditOptions,
    strength: Annotated[float, typer.Option(help="From 0, the image itself, to 1, a sample of the model.")] = 0.6,
    strengths: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="Image or .npy of the same size; multiplies strength."),
    ] = None,
) -> None:
    """Change an image: noise to the time t = strength, then denoise."""
    require(0 <= strength <= 1, "--strength", strength, "a number from 0 (the image) to 1 (a sample)")
    import torch

    from unidiff.cli.editing import EditSession
    from unidiff.data.user_image import read_image, read_map
    from unidiff.editing.sdedit import edit as sdedit

    session = EditSession.load(options)
    data, solver = session.run.recipe.data, session.run.recipe.sampling.solver
    x0 = read_image(options.image, data.decoded_shape)
    spread = torch.tensor(strength, dtype=torch.float64)
    if strengths is not None:  # a map, on the pixels of the image: on those of a latent, its mean
        spread = strength * read_map(strengths, options.image, data.decoded_shape)
        pool = getattr(torch.nn.functional, f"adaptive_avg_pool{spread.ndim}d")
        spread = pool(spread[None], data.shape[1:])[0]

    encoded = data.encode(x0[None].to(session.device))[0]
    session.write(
        functools.partial(sdedit, session.denoiser, encoded, spread, solver, latent=data.coded),
        [x0],
        solver,
        f"image, then edits of strength {strength:g}",
        {"strength": strength, "map": strengths and str(strengths)},
    )
