"""What `unidiff run` does: train a recipe into a run directory, then draw from what was learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from unidiff import plot
from unidiff.classifier import NeuralClassifier
from unidiff.codec.codec import TrainableAutoencoder
from unidiff.conditioning.base import Examples
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import OpenDataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import RunError, RunFailed
from unidiff.grid import Uniform
from unidiff.noise import Seeded
from unidiff.process.base import Process
from unidiff.recipe.recipe import Recipe, load_recipe
from unidiff.recipe.shipped import recipe_command
from unidiff.run.classifying import Classifying, load_classifying
from unidiff.run.codec_report import report_codec, save_reconstructions
from unidiff.run.coding import Coding, load_coding
from unidiff.run.conditional import errors, rows
from unidiff.run.directory import RunDirectory, environment
from unidiff.run.load import draw
from unidiff.run.trackers import Trackers, check_trackers
from unidiff.sampling import Sampling
from unidiff.solver.ddim import DDIM
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.device import resolve_precision
from unidiff.training.loop import Interrupted, Progress, accelerator_for, train

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["READERS", "Reporter", "execute", "resumed_recipe"]

# A cheap look at the model in training: any process, a fraction of the cost of a training interval.
_PREVIEW = Sampling(DDIM(), Uniform(25), count=16)
_PATH_IMAGES, _PATH_POINTS, _PATH_STATES = 8, 256, 12
_ROWS, _EACH = 6, 3  # test images shown with their conditions, and samples of each
_BATCH = 1000  # samples read together where the process measures them
_HOUR = 3600.0
_PACE_SECONDS = 25.0  # training is watched this long before the rest is foretold


Runnable = Recipe | Classifying | Coding
# How the recipe of each command of `recipe_command` that trains is read.
READERS: dict[str, Callable[..., Any]] = {"run": load_recipe, "classify": load_classifying, "code": load_coding}


class Reporter(Protocol):
    """Who is told how the run goes."""

    def notice(self, text: str) -> None:
        """Something that the user must see."""

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """How far a stage ("train", "sample") is."""


def resumed_recipe(directory: Path, recipe: Runnable, *, allow_imports: bool = False) -> Runnable:
    """The recipe that a run was started with, provided that `recipe` is the same.

    Raises:
        RunError: If there is no run to resume, or it was started with another recipe.
    """
    files = RunDirectory(directory)
    if not files.exists():
        raise RunError(f"{directory}: there is no run to resume. Leave --resume out to start one.")
    saved: Runnable = READERS[recipe_command(files.recipe)](files.recipe, allow_imports=allow_imports)
    if changed := _differences(saved.to_dict(), recipe.to_dict()):
        raise RunError(
            f"{directory}: this run was started with another recipe: {'; '.join(changed)}. "
            f"Resume it with its own (`unidiff run {files.recipe} --resume`), or start another with --out."
        )
    return saved


def _differences(saved: Any, given: Any, path: str = "") -> list[str]:
    if isinstance(saved, dict) and isinstance(given, dict):
        keys = [*saved, *(key for key in given if key not in saved)]
        return [
            line
            for key in keys
            for line in _differences(saved.get(key), given.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if saved == given else [f"{path} was {saved!r}, is {given!r}"]


def execute(
    recipe: Runnable,
    directory: Path,
    reporter: Reporter,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a recipe and draw samples, all into a run directory.

    Args:
        recipe: What to do.
        directory: The run directory.
        reporter: Who is told how it goes.
        device: auto, cpu, cuda, cuda:1 or mps.
        resume: Go on with the run that is there.
        overwrite: Replace the run that is there.
        dry_run: Stop before anything is written; say what would be done.
        stop: Asked after every step; True saves a checkpoint and raises Interrupted.

    Returns:
        What was done, for people and programs; empty on all but the first of several processes.

    Raises:
        UnidiffError: If something does not fit; nothing has been written then.
        RunFailed: If training diverged or the disk is full.
        Interrupted: If `stop` said so.
    """
    check_trackers(recipe.training)
    accelerator = accelerator_for(recipe.training, device)
    main = accelerator.is_main_process
    files = RunDirectory(directory)
    needed = 16 * recipe.count_weights() * (recipe.training.keep + 1) + 50_000_000  # weights, average, Adam's moments
    files.check_writable(needed) if resume else files.check_new(overwrite, needed)
    source = recipe.data.open()
    if source.stand_in and main:
        reporter.notice(source.stand_in)
    if recipe.conditioning is not None:
        recipe.conditioning.check(source, recipe.classes)
        if isinstance(recipe, Recipe):
            _examples(recipe, 1)  # they may come from a test split, which is better found missing now
    if not isinstance(recipe, Recipe):
        recipe.data.open("test")  # measured on at the end, and likewise
    precision = resolve_precision(recipe.training.precision, accelerator.device)
    facts = _facts(recipe, source, accelerator, precision)
    if resume:
        _check_same_data(files, facts["data"])
    if dry_run:
        return {"status": "dry run", "directory": str(directory), **facts} if main else {}
    denoiser, measured = _fresh(recipe, files, source, resume)

    accelerator.wait_for_everyone()  # every process has looked at the directory before one of them fills it
    surroundings = environment()
    if main:
        if not resume:
            files.create(recipe.to_yaml(), measured, recipe.data.kept())
            files.update_manifest(started=_now())
        files.update_manifest(status="training", **facts, **surroundings)
    begun, status = time.perf_counter(), "failed"
    try:
        model = _train(recipe, files, denoiser, source, accelerator, reporter, precision, stop)
        summary: dict[str, Any] = {}
        if main and isinstance(recipe, Recipe):
            summary = _draw(recipe, files, model, source, reporter, precision, stop)
        elif main and isinstance(recipe, Classifying):
            summary = _measure(recipe, files, model)
        elif main and isinstance(recipe, Coding):
            summary = report_codec(recipe, files, model.backbone, source)
        status = "finished"
    except Interrupted:
        status = "interrupted"
        raise
    except OSError as error:
        raise RunFailed(f"{directory}: {error}. Mend this, then go on with --resume.") from error
    finally:
        if main and status != "finished":
            with suppress(OSError):
                files.update_manifest(status=status)
    if not main:
        return {}
    summary = {"status": status, "finished": _now(), **summary, "seconds": round(time.perf_counter() - begun, 2)}
    files.update_manifest(**summary)
    return {"directory": str(directory), **facts, **summary}


def _fresh(
    recipe: Runnable, files: RunDirectory, source: OpenDataset, resume: bool
) -> tuple[Any, Mapping[str, Tensor]]:
    """The model with fresh weights, and what its process measured of the data."""
    if isinstance(recipe, Coding):
        torch.manual_seed(recipe.seed)
        return recipe.model(), {}
    process = files.measured(recipe.process) if resume else recipe.process.fit(_batches(source))
    torch.manual_seed(recipe.seed)
    return recipe.model(process), process.measured()


def _batches(source: OpenDataset) -> Iterator[Tensor]:
    """All of the data once."""
    for indices in torch.arange(len(source)).split(_BATCH):
        yield source.batch(indices)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _check_same_data(files: RunDirectory, found: Mapping[str, Any]) -> None:
    """Refuse to go on with other data: a stand-in, say, where the run had begun on the real ones."""
    before = files.read_manifest().get("data", found)
    if before["checksum"] != found["checksum"]:
        raise RunError(
            f"{files.path}: this run was trained on {before['name']} ({before['checksum']}), but what is found now is "
            f"{found['name']} ({found['checksum']}). Bring the data back, or start another run with --out."
        )


def _facts(recipe: Runnable, source: OpenDataset, accelerator: Accelerator, precision: torch.dtype) -> dict[str, Any]:
    return {
        "seed": recipe.seed,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": str(precision).removeprefix("torch."),
        "data": {
            "name": source.name,
            "count": len(source),
            "shape": list(source.shape),
            "checksum": source.checksum,
            "stand_in": source.stand_in,
        },
        "parameters": recipe.count_weights(),
    }


def _train(
    recipe: Runnable,
    files: RunDirectory,
    denoiser: Any,
    source: OpenDataset,
    accelerator: Accelerator,
    reporter: Reporter,
    precision: torch.dtype,
    stop: Callable[[], bool],
) -> Any:
    """The trained model; metrics, previews and the warning of a long run on the way."""
    settings, objective = recipe.training, recipe.objective
    assert objective is not None  # a Coding has filled its own in
    started = files.read_manifest().get("started", "")
    trackers = Trackers(settings, files.tensorboard, files.name, started, recipe.to_dict())
    start = begun = time.perf_counter()
    first = 0  # the step after which the pace is measured, since `begun`
    opened = warned = False

    def on_step(progress: Progress) -> None:
        nonlocal begun, first, opened, warned
        if not accelerator.is_main_process:
            return
        step, steps = progress.step, progress.steps
        reporter.progress("train", step, steps, progress.loss)
        if not opened:
            opened = True
            files.cut_metrics(step - 1)
            trackers.open(step - 1)
            begun, first = time.perf_counter(), step  # the first step warms up, and says nothing of the others
        now = time.perf_counter()
        if not warned and now - start > _PACE_SECONDS and step > first:
            warned = True
            if (left := (now - begun) / (step - first) * (steps - step)) > _HOUR:
                reporter.notice(_long(left, recipe.lighter))
        if progress.loss is not None and progress.grad_norm is not None:
            line = {"loss": progress.loss, "lr": progress.lr, "grad_norm": progress.grad_norm}
            files.append_metrics({"step": step, **line, "seconds": round(progress.seconds, 3)})
            trackers.track(step, line)
        preview = files.samples / f"step-{step:08d}.png"
        due = settings.preview_every and step % settings.preview_every == 0 and step < steps
        if due and isinstance(recipe, Recipe) and isinstance(progress.average, NeuralDenoiser):
            cond = _examples(recipe, _PREVIEW.count).cond
            x = draw(progress.average, _PREVIEW, recipe.data, precision, **cond).x
            caption = _caption(f"{files.name}, step {step} of {steps}", _PREVIEW, recipe.process, source)
            plot.save_samples(x, preview, caption)
        elif due and isinstance(recipe, Coding) and isinstance(progress.average, TrainableAutoencoder):
            caption = f"{files.name}, step {step} of {steps}: pictures, and below each its reconstruction."
            x = source.batch(torch.arange(min(_PREVIEW.count, len(source))))
            save_reconstructions(progress.average.backbone, x, preview, caption)

    try:
        return train(
            denoiser,
            source,
            objective,
            settings,
            conditioning=recipe.conditioning,
            seed=recipe.seed,
            accelerator=accelerator,
            checkpoints=Checkpoints(files.checkpoints, settings.keep),
            on_step=on_step,
            stop=stop,
            report=reporter.notice,
        )
    finally:
        trackers.close()


def _draw(
    recipe: Recipe,
    files: RunDirectory,
    model: NeuralDenoiser,
    source: OpenDataset,
    reporter: Reporter,
    precision: torch.dtype,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """The pictures of a trained model: loss, samples, and a few of these on their way from noise."""
    sampling, data = recipe.sampling, recipe.data
    metrics = files.read_metrics()
    steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
    plot.save_loss_curve(steps, losses, files.loss_curve, files.name)

    def progress(done: int, total: int) -> None:
        reporter.progress("sample", done, total)
        if stop():  # training is saved whole: a resumed run draws again
            raise Interrupted(recipe.training.steps)

    started = time.perf_counter()
    examples = _examples(recipe, sampling.count)
    solution = draw(model, sampling, data, precision, keep=_PATH_STATES, progress=progress, **examples.cond)
    x = solution.x if recipe.conditioning is None else recipe.conditioning.compose(solution.x, examples.cond)
    seconds = time.perf_counter() - started
    if broken := int((~solution.x.isfinite()).flatten(1).any(1).sum()):
        reporter.notice(f"{broken} of {sampling.count} samples are not finite. Use smaller steps in `sampling`.")
    picture = files.samples / "grid.png"
    plot.save_samples(x, picture, _caption(files.name, sampling, recipe.process, source))
    pictures = len(data.decoded_shape) == 3
    shown = _PATH_IMAGES if pictures else _PATH_POINTS
    states, times = [data.decode(state.u[:shown]) for state in solution.path], [state.t for state in solution.path]
    strip = files.samples / "trajectory.png"
    plot.save_strip(
        states, times, strip, _caption(f"{files.name}: from noise to data", sampling, recipe.process, source)
    )
    if pictures:
        plot.save_animation(states, files.samples / "trajectory.gif")
    told = _show(recipe, files, model, source, examples, x.cpu(), precision) if examples.truth is not None else {}
    return {
        "training_seconds": metrics[-1]["seconds"],
        "loss": losses[-1],
        "samples": str(picture),
        "trajectory": str(strip),
        "nfe": solution.nfe,
        "sampling_seconds": round(seconds, 2),
        **told,
    }


def _examples(recipe: Recipe, count: int) -> Examples:
    """Conditions for pictures: all classes in turn, or test images, if the model is told any."""
    known = recipe.conditioning
    return Examples({}) if known is None else known.examples(recipe.data, count, recipe.classes)


def _show(
    recipe: Recipe,
    files: RunDirectory,
    model: NeuralDenoiser,
    source: OpenDataset,
    shown: Examples,
    x: Tensor,
    precision: torch.dtype,
) -> dict[str, Any]:
    """What a model told images is worth: rows of condition, samples and truth; errors beside the mean prediction."""
    conditioning, sampling = recipe.conditioning, recipe.sampling
    assert isinstance(conditioning, ImageConditioning)
    assert shown.truth is not None
    few = _examples(recipe, _ROWS)
    image = few.cond["image"].repeat_interleave(_EACH, 0)
    several = draw(model, replace(sampling, count=len(image)), recipe.data, precision, image=image).x.cpu()
    several = conditioning.compose(several, {"image": image})
    pictures, columns = rows(conditioning, few.cond["image"], several, few.truth)
    place = files.samples / "conditions.png"
    title = f"{files.name}: condition, {_EACH} samples, truth, of test images"
    plot.save_samples(pictures, place, _caption(title, sampling, recipe.process, source), columns)
    found = errors(model, conditioning, sampling, shown.cond["image"], shown.truth, x, precision)
    return {"conditions": str(place), "errors": found}


def _measure(recipe: Classifying, files: RunDirectory, classifier: NeuralClassifier) -> dict[str, Any]:
    """What a trained classifier is worth: its accuracy on the test split, by noise level."""
    metrics = files.read_metrics()
    steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
    plot.save_loss_curve(steps, losses, files.loss_curve, files.name)
    process, test = classifier.process, recipe.data.open("test")
    assert test.labels is not None
    u0 = process.basis.forward(test.batch(torch.arange(min(_BATCH, len(test)))))
    label, device = test.labels[: len(u0)], next(classifier.parameters()).device
    eps = Seeded([recipe.seed])(u0[None])[0]
    accuracy = {}
    for t in (process.t_min, 0.1, 0.25, 0.5, 0.75):
        level = process.level(t, u0)
        with torch.no_grad():
            u = process.perturb(u0, eps, level).to(u0.dtype).split(_BATCH // 10)
            found = torch.cat([classifier(part.to(device), process.level(t, part.to(device))).cpu() for part in u])
        accuracy[f"{t:g}"] = round(float((found.argmax(1) == label).double().mean()), 4)
    return {"training_seconds": metrics[-1]["seconds"], "loss": losses[-1], "accuracy": accuracy}


def _caption(title: str, sampling: Sampling, process: Process, source: OpenDataset) -> str:
    text = f"{title}. {sampling.solver!r}, {sampling.grid_for(process)!r}, seeds from {sampling.seed}."
    return f"{text}\n{source.stand_in}" if source.stand_in else text


def _long(seconds: float, lighter: str | None) -> str:
    hours = seconds / 3600
    remedy = f" A lighter recipe: `unidiff run {lighter}`." if lighter else " Fewer training.steps make it shorter."
    return f"This run will take about {hours:.1f} hours on this machine.{remedy} Ctrl-C saves it at any time."
