"""Tasks that train a model, and how one is trained into a run directory."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from unidiff import plot
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import DataError, ParameterError, RunError, RunFailed, require_whole
from unidiff.noise import seed_everything
from unidiff.recipe.read import inside
from unidiff.run.directory import RunDirectory, environment
from unidiff.run.load import trained
from unidiff.run.records import DataFacts, Facts, Report, TrainingOutcome
from unidiff.run.task import Options, Reporter, Run, Task, resumed_recipe
from unidiff.run.trackers import Trackers, check_trackers
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.device import resolve_precision
from unidiff.training.loop import Interrupted, Progress, accelerator_for, train
from unidiff.training.settings import Training
from unidiff.training.trainable import Conditions, Loss, Trainable

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Session", "TrainingTask", "execute"]

M = TypeVar("M", bound=Trainable)
_HOUR = 3600.0
_PACE_SECONDS = 25.0  # of training, from which the rest is extrapolated


@dataclass(frozen=True)
class Session:
    """A training run as its task sees it: where its files are, its data, and its reporter.

    Attributes:
        files: The run directory.
        source: The opened data.
        reporter: Receives progress and notices.
        precision: Number format of the network's arithmetic.
        stop: Whether the user wants it to end.
    """

    files: RunDirectory
    source: OpenDataset
    reporter: Reporter
    precision: torch.dtype
    stop: Callable[[], bool]

    def trained(self) -> tuple[float, float]:
        """Seconds of training and the last loss, after drawing the curve of the loss."""
        metrics = self.files.read_metrics()
        steps, losses = [line["step"] for line in metrics], [line["loss"] for line in metrics]
        plot.save_loss_curve(steps, losses, self.files.loss_curve, self.files.name)
        return metrics[-1]["seconds"], losses[-1]


class TrainingTask(Task, Generic[M]):
    """A task that trains a model: what `run/` trains, saves, resumes and reads back.

    Attributes:
        data: What to learn from.
        training: How it is trained.
        seed: Seed of the weights and of the training noise.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
        run_class: What a trained model is read back as.
    """

    data: Dataset
    training: Training
    seed: int
    smaller_recipe: str | None
    run_class: ClassVar[type[Run]] = Run

    def __post_init__(self) -> None:
        require_whole("seed", self.seed, 0, 2**62)
        try:
            _ = self.data.shape  # an array file is read here, and may not be what it should
        except DataError as error:
            raise ParameterError("data", str(error)) from error
        with inside("training", self.training):
            self.training.check(self.loss())

    @abstractmethod
    def model(self, measured: Mapping[str, Tensor]) -> M:
        """The model with fresh weights, given what `measure` returned."""

    @abstractmethod
    def loss(self) -> Loss[M]:
        """What training minimises."""

    @abstractmethod
    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""

    @abstractmethod
    def report(self, model: M, session: Session) -> Report:
        """What the trained model is worth: measured and drawn into the run directory."""

    def conditions(self) -> Conditions | None:
        """What the network is conditioned on; None for an unconditional one."""
        return None

    def check_data(self, source: OpenDataset) -> None:
        """Reject opened data that cannot be trained or reported on, before anything is written.

        Raises:
            DataError: With the reason.
        """

    def measure(self, source: OpenDataset) -> Mapping[str, Tensor]:
        """What the model needs to know of the data before training; kept in the run directory."""
        return {}

    @property
    def measures(self) -> bool:
        """Whether `measure` returns anything."""
        return False

    def preview(self, average: M, session: Session, path: Path, title: str) -> None:
        """Draw a cheap image of what the model has learnt so far; nothing by default."""

    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> TrainingOutcome | None:
        """Train, and report; see `Task.run` and `execute`."""
        return execute(self, directory, reporter, **options)

    def facts(self) -> dict[str, Any]:
        """The number of weights; see `Task.facts`."""
        return {"parameters": self.count_weights()}

    def verdict(self) -> str:
        """With the number of weights; see `Task.verdict`."""
        return f"Valid. The network has {self.count_weights():,} parameters."

    def resumed(self, directory: Path, *, allow_imports: bool = False) -> Task:
        """See `Task.resumed`."""
        return resumed_recipe(directory, self, allow_imports=allow_imports)

    def load(self, directory: Path, *, device: str = "auto", report: Callable[[str], None]) -> Run:
        """See `Task.load`."""
        files = RunDirectory(directory)
        model, step = trained(_restored(self, files), files, device, report)
        precision = resolve_precision(self.training.precision, next(model.backbone.parameters()).device)
        return self.run_class(directory, self, files.read_manifest(), model, step, precision)


def execute(
    task: TrainingTask[M], directory: Path, reporter: Reporter, **options: Unpack[Options]
) -> TrainingOutcome | None:
    """Train a task's model and report on it, all into a run directory; see `Task.run`.

    Raises:
        UnidiffError: If something does not fit; nothing has been written then.
        RunFailed: If training diverged or the disk is full.
        Interrupted: If `stop` said so.
    """
    resume, dry_run = options.get("resume", False), options.get("dry_run", False)
    check_trackers(task.training)
    accelerator = accelerator_for(task.training, options.get("device", "auto"))
    main = accelerator.is_main_process
    files = RunDirectory(directory)
    needed = 16 * task.count_weights() * (task.training.keep + 1) + 50_000_000  # weights, average, Adam's moments
    files.check(resume=resume, overwrite=options.get("overwrite", False), needed=needed)
    source = task.data.look() if dry_run else task.data.open()
    if source.stand_in and main:
        reporter.notice(source.stand_in)
    task.check_data(source)
    precision = resolve_precision(task.training.precision, accelerator.device)
    facts = Facts(
        seed=task.seed,
        device=str(accelerator.device),
        processes=accelerator.num_processes,
        precision=str(precision).removeprefix("torch."),
        data=DataFacts.of(source),
        parameters=task.count_weights(),
    )
    if resume:
        _check_same_data(files, facts.data)
    if dry_run:
        return TrainingOutcome("dry run", str(directory), facts) if main else None
    measured: Mapping[str, Tensor] = {} if resume else task.measure(source)
    seed_everything(task.seed)
    fresh = _restored(task, files) if resume else task.model(measured)

    accelerator.wait_for_everyone()  # every process has looked at the directory before one of them fills it
    if main:
        if not resume:
            files.create(task.to_yaml(), measured, task.data.kept())
            files.update_manifest(started=_now())
        files.update_manifest(status="training", **asdict(facts), **environment())
    begun, status = time.perf_counter(), "failed"
    session = Session(files, source, reporter, precision, options.get("stop", lambda: False))
    try:
        model = _train(task, session, fresh, accelerator)
        report = task.report(model, session) if main else None
        status = "finished"
    except Interrupted:
        status = "interrupted"
        raise
    except OSError as error:
        raise RunFailed(f"{directory}: {error}. Fix the problem, then continue with --resume.") from error
    finally:
        if main and status != "finished":
            with suppress(OSError):
                files.update_manifest(status=status)
    if not main:
        return None
    seconds = round(time.perf_counter() - begun, 2)
    outcome = TrainingOutcome(status, str(directory), facts, report, _now(), seconds)
    files.update_manifest(**outcome.summary())
    return outcome


def _restored(task: TrainingTask[M], files: RunDirectory) -> M:
    """The model with fresh weights, and what was measured of the data when the run began."""
    if not task.measures:
        return task.model({})
    with files.measured() as measured:
        return task.model(measured)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _check_same_data(files: RunDirectory, data: DataFacts) -> None:
    """Reject other data than the run began with: a stand-in, say, in place of the real data."""
    before = files.read_manifest().data or data
    if before.checksum != data.checksum:
        raise RunError(
            f"{files.path}: this run was trained on {before.name} ({before.checksum}), but the data are now "
            f"{data.name} ({data.checksum}). Restore the data, or start another run with --out."
        )


def _train(task: TrainingTask[M], session: Session, fresh: M, accelerator: Accelerator) -> M:
    """The trained model; metrics, previews and the warning of a long run on the way."""
    settings, files, reporter = task.training, session.files, session.reporter
    trackers = Trackers(settings, files.tensorboard, files.name, files.read_manifest().started, task.to_dict())
    start = begun = time.perf_counter()
    first, opened, warned = 0, False, False  # the pace is measured from the step `first`, since `begun`

    def on_step(progress: Progress[M]) -> None:
        nonlocal begun, first, opened, warned
        if not accelerator.is_main_process:
            return
        step, steps = progress.step, progress.steps
        reporter.progress("train", step, steps, progress.loss)
        if not opened:
            opened = True
            files.cut_metrics(step - 1)
            trackers.open(step - 1)
            begun, first = time.perf_counter(), step  # the first step is slower
        now = time.perf_counter()
        if not warned and now - start > _PACE_SECONDS and step > first:
            warned = True
            if (remaining := (now - begun) / (step - first) * (steps - step)) > _HOUR:
                reporter.notice(_long(remaining, task.smaller_recipe))
        if progress.loss is not None and progress.grad_norm is not None:
            line = {"loss": progress.loss, "lr": progress.lr, "grad_norm": progress.grad_norm}
            files.append_metrics({"step": step, **line, "seconds": round(progress.seconds, 3)})
            trackers.track(step, line)
        if settings.preview_every and step % settings.preview_every == 0 and step < steps:
            path = files.samples / f"step-{step:08d}.png"
            task.preview(progress.average, session, path, f"{files.name}, step {step} of {steps}")

    try:
        return train(
            fresh,
            session.source,
            task.loss(),
            settings,
            conditioning=task.conditions(),
            seed=task.seed,
            accelerator=accelerator,
            checkpoints=Checkpoints(files.checkpoints, settings.keep),
            on_step=on_step,
            stop=session.stop,
            report=reporter.notice,
        )
    finally:
        trackers.close()


def _long(seconds: float, smaller: str | None) -> str:
    hours = seconds / 3600
    remedy = f" A smaller recipe: `unidiff run {smaller}`." if smaller else " Reduce training.steps to shorten it."
    return f"This run will take about {hours:.1f} hours on this machine.{remedy} Ctrl-C saves it at any time."
