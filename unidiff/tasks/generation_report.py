"""The report of a trained generative model: samples, paths, and errors under image conditions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff import plot
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import OpenDataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import RunFailed
from unidiff.evaluation.conditional import mean_prediction, rms, tells_mean
from unidiff.process.base import Process
from unidiff.run.execute import Session
from unidiff.run.load import draw
from unidiff.run.records import Report
from unidiff.solver.finite import not_finite
from unidiff.solver.sample import Sampling
from unidiff.training.device import arithmetic

if TYPE_CHECKING:
    from unidiff.tasks.generation import Generation

__all__ = ["Errors", "GenerationReport", "caption", "errors", "examples", "report_generation", "rows"]

_NOISES = 8  # over which the mean prediction is averaged
_PATH_IMAGES, _PATH_POINTS, _PATH_STATES = 8, 256, 12
_SLICED = 16  # volumes or videos whose slices or frames are shown one after another
_ROWS, _EACH = 6, 3  # test images shown with their conditions, and samples of each


@dataclass(frozen=True)
class Errors:
    """Root mean square error per value, over all pixels, of three estimates of the images behind some conditions.

    Attributes:
        images: Number of conditions.
        samples: Of samples.
        mean_prediction: Of the model's E[x0 | image]; None for a model that does not predict it.
        guess: Of the baseline, which needs no model.
    """

    images: int
    samples: float
    mean_prediction: float | None
    guess: float

    def __str__(self) -> str:
        mean = "" if self.mean_prediction is None else f"{self.mean_prediction:.4f} of the mean prediction, "
        return f"rms {self.samples:.4f} of samples, {mean}{self.guess:.4f} of a guess; {self.images} answers"


@dataclass(frozen=True)
class GenerationReport(Report):
    """Paths, times, cost; `conditions`, `errors` of a model conditioned on images, `frames` of volumes and videos."""

    samples: str
    trajectory: str
    nfe: int
    sampling_seconds: float
    times: list[float] | None = None
    conditions: str | None = None
    errors: Errors | None = None
    frames: str | None = None

    def rows(self) -> dict[str, str | None]:
        """See `Report.rows`."""
        return {
            "sampling": f"{self.sampling_seconds:.0f} s, {self.nfe} evaluations per sample",
            "errors": None if self.errors is None else str(self.errors),
            "samples": self.samples,
            "frames": self.frames,
            "conditions": self.conditions,
            "trajectory": self.trajectory,
        }


def rows(conditioning: ImageConditioning, image: Tensor, x: Tensor, truth: Tensor | None) -> tuple[Tensor, int]:
    """Images in rows of condition, samples and, where it is known, truth; and the number of columns."""
    cells = [conditioning.as_image(image)[:, None], x.unflatten(0, (len(image), -1))]
    cells += [] if truth is None else [truth[:, None]]
    table = torch.cat(cells, dim=1)
    return table.flatten(0, 1), table.shape[1]


def errors(
    model: NeuralDenoiser,
    conditioning: ImageConditioning,
    sampling: Sampling,
    cond: Mapping[str, Any],
    truth: Tensor,
    x: Tensor,
    precision: torch.dtype,
) -> Errors:
    """The errors of a sample for each of some conditions.

    Args:
        model: The model.
        conditioning: What made the conditions.
        sampling: Its `batch` and `seed` are used.
        cond: The conditions, `image` among them, (B, C', H, W).
        truth: The images they were made from, (B, C, H, W).
        x: The samples, (B, C, H, W).
        precision: Number format of the network's arithmetic.
    """
    mean, image = None, cond["image"]
    if tells_mean(model):
        device = next(model.parameters()).device
        seeds, batch = range(sampling.seed, sampling.seed + len(image)), sampling.batch
        with arithmetic(precision, device):
            expected = mean_prediction(model, seeds=seeds, draws=_NOISES, device=device, batch=batch, **cond).cpu()
        mean = round(rms(conditioning.compose(expected, cond), truth), 4)
    guess = round(rms(conditioning.baseline(image), truth), 4)
    return Errors(len(image), round(rms(x, truth), 4), mean, guess)


def report_generation(recipe: Generation, model: NeuralDenoiser, session: Session) -> GenerationReport:
    """Draw the images of a trained model: loss, samples, and a few of these on their way from noise."""
    sampling, data, files, precision = recipe.sampling, recipe.data, session.files, session.precision
    training_seconds, loss = session.trained()

    def title(text: str) -> str:
        return caption(text, sampling, recipe.process, session.source)

    def progress(done: int, total: int) -> None:
        session.reporter.progress("sample", done, total)
        session.poll()

    started = time.perf_counter()
    cond, truth = examples(recipe, sampling.count)
    solution = draw(model, sampling, data, precision, keep=_PATH_STATES, progress=progress, **cond)
    conditioning = recipe.conditions()
    x = solution.x if conditioning is None else conditioning.compose(solution.x, cond)
    seconds = round(time.perf_counter() - started, 2)
    if (problem := not_finite(solution.x)) is not None:
        if not bool(solution.x.isfinite().flatten(1).all(1).any()):
            count = f"{sampling.count} of {sampling.count} samples are not finite"
            cause = f"Training may have diverged (final loss {loss:.4g}): try a smaller lr or `clip: 1`, or"
            raise RunFailed(f"{files.path}: {count}. {cause} more steps in `sampling`. The checkpoint is saved.")
        session.reporter.notice(problem)
    grid, trajectory = files.samples / "grid.png", files.samples / "trajectory.png"
    plot.save_samples(x, grid, title(files.name))
    drawn, sliced = len(data.decoded_shape) > 1, len(data.decoded_shape) == 4
    few = _PATH_IMAGES if drawn else _PATH_POINTS
    states, times = [data.decode(state.u[:few]) for state in solution.path], [state.t for state in solution.path]
    plot.save_strip(states, times, trajectory, title(f"{files.name}: from noise to data"))
    if drawn:
        plot.save_animation(states, trajectory.with_suffix(".gif"), times)
    report = GenerationReport(training_seconds, loss, str(grid), str(trajectory), solution.nfe, seconds, times)
    if sliced:
        frames = files.samples / "frames.gif"
        plot.save_animation(x[:_SLICED].unbind(2), frames)
        report = replace(report, frames=str(frames))
    measured = None if conditioning is None else conditioning.measured
    if measured is None or truth is None:
        return report
    session.poll()
    found = errors(model, measured, sampling, cond, truth, x.cpu(), precision)
    few_cond, truth = examples(recipe, _ROWS)
    repeated = {name: value.repeat_interleave(_EACH, 0) for name, value in few_cond.items()}
    few_samples = replace(sampling, count=_ROWS * _EACH)
    x = draw(model, few_samples, data, precision, progress=lambda done, total: session.poll(), **repeated).x.cpu()
    table, columns = rows(measured, few_cond["image"], measured.compose(x, repeated), truth)
    path = files.samples / "conditions.png"
    plot.save_samples(table, path, title(f"{files.name}: condition, {_EACH} samples, truth, of test images"), columns)
    return replace(report, conditions=str(path), errors=found)


def examples(recipe: Generation, count: int) -> Examples:
    """Conditions of samples to look at: all classes in turn, or test images, if the model is conditioned on any."""
    conditioning = recipe.conditions()
    return Examples({}) if conditioning is None else conditioning.examples(recipe.data, count, recipe.classes)


def caption(title: str, sampling: Sampling, process: Process, source: OpenDataset) -> str:
    """A title with solver, grid, seeds and, where there is one, the stand-in."""
    text = f"{title}. {sampling.in_words(process)}."
    return f"{text}\n{source.stand_in}" if source.stand_in else text
