"""The conditions of a model trained with images: the user's images, or test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from unidiff.cli.editing import read_image, read_mask
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.errors import DataError, ParameterError, RunError, complaint
from unidiff.tasks.generation import GenerationRun

__all__ = ["conditioning_of", "read_examples"]

TEST_IMAGES = 6  # used where no image is named


def conditioning_of(run: GenerationRun, images: Sequence[Path], mask: Path | None) -> ImageConditioning | None:
    """What made the images that the run's model was conditioned on; None if it was trained without images.

    Raises:
        RunError: If it was trained without images and one is given, or if a mask is given without an image.
    """
    if run.denoiser.image is None:
        for option, path in (("--image", images[0] if images else None), ("--mask", mask)):
            if path is not None:
                problem = (
                    f"{run.directory} was trained without images. Train a recipe such as superresolution_mnist_cpu."
                )
                raise RunError(f"{option} {path}: {problem}")
        return None
    if mask is not None and not images:
        raise RunError(f"--mask {mask}: name the image that it belongs to with --image.")
    return cast(ImageConditioning, run.recipe.conditioning)


def read_examples(
    conditioning: ImageConditioning, run: GenerationRun, images: Sequence[Path], mask: Path | None
) -> Examples:
    """The conditions of the user's images; of a few test images, with their truth, if there are none.

    Raises:
        DataError: If a file is missing, not an image, or too small.
        RunError: If a mask is missing, or has no meaning for this model.
    """
    shape = run.recipe.data.shape
    if not images:
        return conditioning.examples(run.recipe.data, TEST_IMAGES, None)
    conditions = []
    for path in images:
        image = read_image(path, _shape_of(path, conditioning.measurement_shape(shape), shape))
        known = None if mask is None else ~read_mask(mask, path, shape)
        try:
            conditions.append(conditioning.from_user(image, shape, known))
        except ParameterError as error:
            raise RunError(complaint("--mask", error.problem)) from error
    return Examples({"image": torch.stack(conditions)})


def _shape_of(path: Path, seen: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the image in a file: that of a condition, such as a small image, or that of a sample."""
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
        problem = f"{path} is {width} x {height} pixels; give an image of {small}, or one of at least {large}"
        raise DataError(f"{problem}, which is reduced.")
    return whole
