"""What the commands that write samples share: a run of images to edit, and how results are written and printed."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff import plot
from unidiff.cli.conditions import conditioned
from unidiff.cli.console import Console, say
from unidiff.cli.options import EditOptions, sample_conditions, split_conditions
from unidiff.cli.output import OutputOptions
from unidiff.denoiser import Denoiser
from unidiff.errors import RunError, RunFailed, require_whole
from unidiff.files import save_new, whole_file
from unidiff.solver.base import Solver
from unidiff.solver.sample import Solution
from unidiff.tasks.generation import GenerationRun
from unidiff.training.device import arithmetic

__all__ = ["EditSession", "write_samples"]


@dataclass(frozen=True)
class EditSession:
    """A loaded run of images, its model, guided perhaps, conditions, options, and the folder of its images."""

    run: GenerationRun
    denoiser: Denoiser
    cond: Mapping[str, Tensor]
    options: EditOptions
    folder: Path

    @staticmethod
    def load(options: EditOptions) -> EditSession:
        """Read the run.

        Raises:
            RunError: If its samples are not images, or need an image as a condition.
        """
        directory, count = options.run, options.count
        changes, named = split_conditions(options.overrides)
        if count is not None:
            require_whole("--count", count, 1, 10_000_000)
        if count is not None or not any(change.startswith("sampling.count=") for change in changes):
            changes.append(f"sampling.count={count or 8}")
        with Console() as console:
            run = options.model.load(directory, changes, console.notice, options.drawn)
            shape = run.recipe.data.decoded_shape
            if len(shape) < 2:
                problem = "only signals, images, volumes and videos can be edited"
                raise RunError(f"{directory}: its samples have shape {shape}; {problem}.")
            if not options.images.images and any(condition.required for condition in run.denoiser.conditions or ()):
                problem = "this model is conditioned on images and needs one"
                remedy = "Pass it with --image FILE, and --mask FILE for a model trained with masks."
                raise RunError(f"{directory}: {problem}. {remedy}")
            folder = options.output.folder_of(directory)
            model = conditioned(run, options.guidance, options.images, options.model, console.notice, values=named)
        denoiser = run.recipe.sampling.accelerated(model.denoiser)
        return EditSession(run, denoiser, model.in_turn(run.recipe.sampling.count), options, folder)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.denoiser.parameters()).device

    def write(
        self,
        draw: Callable[..., Solution],
        images: Sequence[Tensor],
        solver: Solver,
        caption: str,
        facts: Mapping[str, Any],
    ) -> None:
        """Draw in batches, write the images, (C, *sizes), followed by the samples, and print what was done."""
        sampling, data = dataclasses.replace(self.run.recipe.sampling, solver=solver), self.run.recipe.data
        started = time.perf_counter()
        with Console() as console, arithmetic(self.run.precision, self.device):
            solution = draw(
                grid=sampling.grid_for(self.run.recipe.process),
                seeds=range(sampling.seed, sampling.seed + sampling.count),
                batch=sampling.batch,
                progress=lambda done, total: console.progress("sample", done, total),
                **self.cond,
            )
        x = torch.cat([data.decode(part).cpu() for part in solution.x.split(sampling.batch)])
        options = self.options
        result = {"run": str(options.run), "step": self.run.step, "image": str(options.image)}
        chosen = sample_conditions(options.guidance, options.images, split_conditions(options.overrides)[1])
        result |= {**chosen.facts(), **facts, "count": sampling.count, "nfe": solution.nfe}
        result["seconds"] = round(time.perf_counter() - started, 2)
        title = f"{options.run.absolute().name}: {caption}. {sampling.in_words(self.run.recipe.process)}."
        shown = torch.cat([torch.stack(list(images)), x])
        write_samples(x, shown, title, options.output, self.folder, result, options.as_json)


def write_samples(
    x: Tensor,
    shown: Tensor,
    title: str,
    output: OutputOptions,
    folder: Path,
    result: Mapping[str, Any],
    as_json: bool,
    columns: int | None = None,
) -> None:
    """Write the samples, and an image of what is shown; print one JSON object, or lines of text.

    The values of images are clipped to [-1, 1]. `result` is what JSON holds; count, nfe, seconds and errors are text.
    Without --out, the image goes to `folder`.

    Raises:
        RunFailed: If a file cannot be written.
    """
    array, image = output.array, output.out
    try:
        if image is None:
            image = save_new(
                lambda path: plot.save_samples(shown, path, title, columns), lambda: output.image_in(folder)
            )
        else:
            plot.save_samples(shown, image, title, columns)
        if array is not None:
            values = x.numpy().astype(np.float32)
            with whole_file(array) as partial, partial.open("wb") as file:  # np.save would add .npy to another ending
                np.save(file, values.clip(-1, 1) if values.ndim > 3 else values)
    except OSError as error:
        raise RunFailed(f"{error}. Choose other files with --out and --array.") from error
    if as_json:
        files = {"samples": str(image), "array": array and str(array)}
        print(json.dumps({**result, **files}, default=dataclasses.asdict))
        return
    say(f"{result['count']} samples, {result['nfe']} evaluations each, {result['seconds']:.1f} s: {image}")
    if result.get("errors") is not None:
        say(f"errors: {result['errors']}")
    if array is not None:
        say(f"values: {array}")
