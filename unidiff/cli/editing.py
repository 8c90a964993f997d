"""What `unidiff inpaint` and `unidiff edit` share: a run of images, a picture to start from, and where results go."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unidiff import plot
from unidiff.cli.console import Console
from unidiff.cli.output_paths import check_place, free_name
from unidiff.data.image import decode
from unidiff.denoiser import Denoiser
from unidiff.errors import DataError, RunError, RunFailed
from unidiff.grid import Grid
from unidiff.run.directory import RunDirectory
from unidiff.solver.sample import Sampling, Solution
from unidiff.tasks.conditions import Conditioned
from unidiff.tasks.generation import GenerationRun, load_generation
from unidiff.training.device import arithmetic

__all__ = ["EditSession", "read_image", "read_map", "read_mask"]

Alter = Callable[
    [Denoiser, torch.device, Grid, Sequence[int], Callable[[int, int], None], Mapping[str, Tensor]], Solution
]


@dataclass(frozen=True)
class EditSession:
    """A loaded run of images, how it is to be sampled, and where picture and values are to go."""

    run: GenerationRun
    conditioned: Conditioned
    sampling: Sampling
    picture: Path
    array: Path | None

    @staticmethod
    def load(
        directory: Path,
        overrides: Sequence[str] | None,
        count: int | None,
        device: str,
        allow_imports: bool,
        out: Path | None,
        array: Path | None,
        conditions: Callable[[GenerationRun, str, bool, Callable[[str], None]], Conditioned],
    ) -> EditSession:
        """Read the run, once it is certain that the results can be written.

        Raises:
            RunError: If its samples are not images, or need an image as a condition.
        """
        check_place("--array", array)
        check_place("--out", out, array)
        given = any(change.startswith("sampling.count=") for change in overrides or [])
        changes = [*(overrides or []), *([] if count is None and given else [f"sampling.count={count or 8}"])]
        if count is not None and count < 1:
            raise RunError(f"--count {count}: allowed is an integer >= 1.")
        with Console() as console:
            run = load_generation(directory, changes, device=device, allow_imports=allow_imports, report=console.notice)
        shape = run.recipe.data.decoded_shape
        if len(shape) != 3:
            raise RunError(f"{directory}: its samples have shape {shape}; only images, (C, H, W), can be altered.")
        if run.denoiser.image is not None:
            remedy = f"Use `unidiff sample {directory} --image FILE`, with --mask for a model trained with masks."
            problem = "this model was trained with images as conditions and needs one"
            raise RunError(f"{directory}: {problem}. {remedy}")
        picture = out or free_name(RunDirectory(directory).samples)
        check_place("--out", picture)
        with Console() as console:
            conditioned = conditions(run, device, allow_imports, console.notice)
        return EditSession(run, conditioned, run.recipe.sampling, picture, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a picture, (C, H, W)."""
        return self.run.recipe.data.decoded_shape

    def draw(
        self, alter: Alter, given: Sequence[Tensor], caption: str, facts: Mapping[str, Any], as_json: bool
    ) -> None:
        """Draw in batches, write the given pictures followed by the samples, and say what was done."""
        sampling, denoiser = self.sampling, self.conditioned.denoiser
        cond = self.conditioned.in_turn(sampling.count)
        place = next(denoiser.parameters()).device
        started = time.perf_counter()
        seeds = range(sampling.seed, sampling.seed + sampling.count)
        with Console() as console, arithmetic(self.run.precision, place):
            grid = sampling.grid_for(self.run.recipe.process)
            solution = alter(
                denoiser, place, grid, seeds, lambda done, total: console.progress("sample", done, total), cond
            )
        data = self.run.recipe.data
        x = torch.cat([data.decode(part).cpu() for part in solution.x.split(sampling.batch)])
        seconds = time.perf_counter() - started
        title = f"{self.run.directory.absolute().name}: {caption}, seeds from {sampling.seed}."
        try:
            plot.save_samples(torch.cat([*(picture[None] for picture in given), x]), self.picture, title)
            if self.array is not None:
                with self.array.open("wb") as file:  # np.save would add .npy to another ending
                    np.save(file, x.numpy().astype(np.float32).clip(-1, 1))
        except OSError as error:
            raise RunFailed(f"{error}. Choose other places with --out and --array.") from error
        result = {
            "run": str(self.run.directory),
            "step": self.run.step,
            **facts,
            "count": sampling.count,
            "nfe": solution.nfe,
            "seconds": round(seconds, 2),
            "samples": str(self.picture),
            "array": str(self.array) if self.array else None,
        }
        if as_json:
            print(json.dumps(result))
            return
        print(f"{sampling.count} samples, {solution.nfe} evaluations each, {seconds:.1f} s: {self.picture}")
        if self.array is not None:
            print(f"values: {self.array}")


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """A picture as the model sees it, (C, H, W) in [-1, 1], float32: its centre square, resized.

    Raises:
        DataError: If the file is no picture, or an array of another shape or range.
    """
    _require_file(path)
    if path.suffix != ".npy":
        return decode(path, _side(shape), shape[0]).float() / 127.5 - 1
    try:
        values = np.load(path, allow_pickle=False)
        if not np.issubdtype(values.dtype, np.floating):
            raise DataError(f"{path} holds {values.dtype}; give floats in [-1, 1]: x / 127.5 - 1 for bytes.")
        x = torch.from_numpy(values.astype(np.float32))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{path} is not a readable array ({error}). Write it with numpy.save.") from error
    if tuple(x.shape) != tuple(shape):
        raise DataError(f"{path} has shape {tuple(x.shape)}; the model draws {tuple(shape)}.")
    if not bool((x.abs() <= 1).all()):
        low, high = float(x.min()), float(x.max())
        raise DataError(f"{path} has values from {low:g} to {high:g}; give [-1, 1]: x / 127.5 - 1 for bytes.")
    return x


def read_map(path: Path, image: Path, shape: Sequence[int]) -> Tensor:
    """A grey picture of the image's size as numbers from 0 (black) to 1 (white), (H, W), float64.

    Raises:
        DataError: If the file is no picture, or of another size than the image.
    """
    _require_file(path)
    mine, its = _size(path, shape), _size(image, shape)
    if mine != its:
        problem = f"{path} is {mine[0]} x {mine[1]} pixels, {image} is {its[0]} x {its[1]}"
        raise DataError(f"{problem}. Make them the same size.")
    return decode(path, _side(shape), 1)[0].double() / 255


def read_mask(path: Path, image: Path, shape: Sequence[int]) -> Tensor:
    """Where a mask of the image's size is white, (H, W), bool; a pixel that is partly white after resizing is white.

    Raises:
        DataError: If the file is no picture, of another size than the image, or not white anywhere.
    """
    free = read_map(path, image, shape) > 0.05  # an antialiased border belongs to what is drawn
    if not bool(free.any()):
        raise DataError(f"{path} is black everywhere: there is nothing to draw. White is drawn, black is kept.")
    return free


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")


def _size(path: Path, shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of a picture; of an array, which has the model's shape, the model's."""
    if path.suffix == ".npy":
        return shape[2], shape[1]
    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image ({error}). Delete it or replace it.") from error


def _side(shape: Sequence[int]) -> int:
    if shape[1] != shape[2]:
        raise DataError(f"The model draws {shape[1]} x {shape[2]} pixels, no square. Give the image as an array .npy.")
    return shape[1]
