"""What `unidiff sample` tells a model that was trained with images: the user's pictures, or test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from unidiff.cli.editing import read_image, read_mask
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.errors import DataError, ParameterError, RunError, complaint
from unidiff.tasks.generation import GenerationRun

__all__ = ["conditioning_of", "read_examples"]

TEST_IMAGES = 6  # shown where no picture is named


def conditioning_of(run: GenerationRun, images: Sequence[Path], mask: Path | None) -> ImageConditioning | None:
    """How the run's model was told images; None if it was told none.

    Raises:
        RunError: If pictures are given that it has no use for, or a mask without one.
    """
    conditioning = run.recipe.conditioning
    if not isinstance(conditioning, ImageConditioning):
        for option, path in (("--image", images[0] if images else None), ("--mask", mask)):
            if path is not None:
                problem = (
                    f"{run.directory} was trained without images. Train a recipe such as superresolution_mnist_cpu."
                )
                raise RunError(f"{option} {path}: {problem}")
        return None
    if mask is not None and not images:
        raise RunError(f"--mask {mask}: name the picture that it belongs to with --image.")
    return conditioning


def read_examples(
    conditioning: ImageConditioning, run: GenerationRun, images: Sequence[Path], mask: Path | None
) -> Examples:
    """The conditions of the user's pictures; of a few test images, with their truth, if there are none.

    Raises:
        DataError: If a file is missing, no picture, or of a size that is of no use.
        RunError: If a mask is missing, or has no meaning for this model.
    """
    shape = run.recipe.data.shape
    if not images:
        return conditioning.examples(run.recipe.data, TEST_IMAGES, None)
    told = []
    for path in images:
        picture = read_image(path, _shape_of(path, conditioning.measurement_shape(shape), shape))
        known = None if mask is None else ~read_mask(mask, path, shape)
        try:
            told.append(conditioning.from_user(picture, shape, known))
        except ParameterError as error:
            raise RunError(complaint("--mask", error.problem)) from error
    return Examples({"image": torch.stack(told)})


def _shape_of(path: Path, seen: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """Whether a file holds a picture as it is seen, a small one perhaps, or a whole one."""
    if seen == whole or not path.is_file():
        return whole
    try:
        if path.suffix == ".npy":
            import numpy as np

            return seen if np.load(path, mmap_mode="r", allow_pickle=False).shape == seen else whole
        with Image.open(path) as opened:
            width, height = opened.size
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return whole  # `read_image` says what is wrong with it
    if (height, width) == seen[1:]:
        return seen
    if height < whole[1] or width < whole[2]:
        small, large = (f"{size[2]} x {size[1]}" for size in (seen, whole))
        problem = f"{path} is {width} x {height} pixels; give a picture of {small}, or one of at least {large}"
        raise DataError(f"{problem}, which is reduced.")
    return whole
