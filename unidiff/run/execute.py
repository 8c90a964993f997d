"""Tasks that train a model, and how one is trained into a run directory."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from unidiff.data.base import Dataset, OpenDataset
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import DataError, ParameterError, RunError, RunFailed, require_whole
from unidiff.machine import now
from unidiff.memory import as_bytes
from unidiff.noise import global_states_kept, seed_everything
from unidiff.recipe.read import inside
from unidiff.run.directory import RunDirectory
from unidiff.run.environment import environment
from unidiff.run.extension import DAMAGED, changed_data, changed_numbers, record_extension
from unidiff.run.forecast import Pace, disk_of_run, forecast, memory_of_weights, remarks
from unidiff.run.load import Run
from unidiff.run.origin import check_built_on, gather
from unidiff.run.records import DataFacts, Report, TrainingOutcome
from unidiff.run.session import Session
from unidiff.run.shipped import require_own
from unidiff.run.task import Options, Reporter, Task, load_recipe
from unidiff.run.trackers import Trackers, check_trackers
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.device import resolve_device, resolve_precision
from unidiff.training.loop import Interrupted, Progress, train
from unidiff.training.processes import accelerator_for
from unidiff.training.settings import Training
from unidiff.training.trainable import Conditions, Loss, Trainable

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Session", "TrainingTask"]

M = TypeVar("M", bound=Trainable)


class TrainingTask(Task, Generic[M]):
    """A task that trains a model, which can be resumed and read back.

    Attributes:
        data: What to learn from.
        training: How it is trained.
        seed: Seed of the weights and of the training noise.
        smaller_recipe: Name of a shipped recipe like this one that needs less time and memory, or None.
        start: The run or folder of diffusers whose (averaged) weights training begins with; None for fresh ones.
        train: Names of the modules or parameters that are trained, with or without wildcards; None for all.
        teacher: The run whose model the objective needs; None if it needs none.
        run_class: What a trained model is read back as.
    """

    data: Dataset
    training: Training
    seed: int
    smaller_recipe: str | None
    start: str | None = None
    train: tuple[str, ...] | None = None
    teacher: str | None = None
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

    def taught(self, teacher: NeuralDenoiser) -> Loss[M]:
        """The loss with the model that it needs.

        Raises:
            ParameterError: If the loss needs none, or the teacher does not fit the task.
        """
        raise ParameterError("teacher", f"{self.noun} needs no teacher. Leave it out.")

    def sketch(self) -> nn.Module:
        """The network on the meta device: the names and shapes of its weights, without their values."""
        with torch.device("meta"):
            return self.model({}).backbone

    @abstractmethod
    def count_weights(self) -> int:
        """The number of scalars in the network's parameters, counted without making them."""

    @abstractmethod
    def report(self, model: M, session: Session) -> Report:
        """Evaluate the trained model, with figures in the run directory."""

    def conditions(self) -> Conditions | None:
        """What the network is conditioned on; None for an unconditional one."""
        return None

    def check_data(self, source: OpenDataset) -> None:
        """Raise a DataError for opened data that cannot be trained or reported on, before anything is written."""

    def check_named(self, reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
        """What the run builds on, and its data; see `Task.check_named`."""
        check_built_on(self, reporter, device, allow_imports)
        with inside("data", self.data):
            source = self.data.look()
        self.check_data(source)

    def measure(self, source: OpenDataset) -> Mapping[str, Tensor]:
        """What the model needs to know of the data before training; kept in the run directory."""
        return {}

    @property
    def measures(self) -> bool:
        """Whether `measure` returns anything."""
        return False

    def preview(self, average: M, session: Session, path: Path, title: str) -> None:
        """Draw a cheap image of what the model has learnt so far; nothing by default."""

    def facts(self) -> dict[str, Any]:
        """The number of weights, and the memory that training needs beside a batch; see `Task.facts`."""
        return {"parameters": (count := self.count_weights()), "memory": memory_of_weights(count, self.training)}

    def verdict(self) -> str:
        """With the number of weights; see `Task.verdict`."""
        memory = as_bytes(memory_of_weights(count := self.count_weights(), self.training))
        return f"Valid. The network has {count:,} parameters; training needs {memory} of memory and that of a batch."

    def resumed(self, directory: Path, *, allow_imports: bool = False, extend: bool = False) -> Task:
        """See `Task.resumed`."""
        files = RunDirectory(directory)
        changed = changed_numbers(self, files, extend, lambda text: None, allow_imports=allow_imports)
        return self if changed else load_recipe(files.recipe, allow_imports=allow_imports)  # with the files it keeps

    def load(self, directory: Path, *, device: str, report: Callable[[str], None]) -> Run:
        """See `Task.load`."""
        files, where = RunDirectory(directory), resolve_device(device)
        model = self._fresh(files)
        if (checkpoint := Checkpoints(files.checkpoints).load(report, where, to_train=False)) is None:
            raise RunError(f"{directory}: this run has no checkpoint yet. Train it with `unidiff run --resume`.")
        model.backbone.to(where).eval().requires_grad_(False)
        try:
            model.backbone.load_state_dict(checkpoint.ema)
        except RuntimeError as error:
            problem = "the weights are not those of the network in recipe.yaml. Restore the recipe used in training."
            raise RunError(f"{directory}: {problem}") from error
        if not all(bool(weight.isfinite().all()) for weight in checkpoint.ema.values()):
            raise RunError(f"{directory}: training diverged, its weights are not finite. Train with a smaller lr.")
        precision = resolve_precision(self.training.precision, where)
        return self.run_class(directory, self, files.read_manifest(), model, checkpoint.step, precision)

    @global_states_kept()
    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> TrainingOutcome | None:
        """Train, and report; see `Task.run`.

        Raises:
            RunFailed: If training diverged or the disk is full.
            Interrupted: If `stop` returned True.
        """
        resume, dry_run = options.get("resume", False), options.get("dry_run", False)
        check_trackers(self.training)
        accelerator = accelerator_for(self.training, options.get("device", "auto"), reporter.notice)
        main, allow_imports = accelerator.is_main_process, options.get("allow_imports", False)
        files, extend, changes = RunDirectory(require_own(directory)), options.get("extend", False), list[str]()
        if resume:
            changes = changed_numbers(self, files, extend, reporter.notice, allow_imports=allow_imports)
        count = self.count_weights()
        before = files.check(resume, options.get("overwrite", False), disk_of_run(count, self.training))
        needs = forecast(count, self.sketch, self.data.shape, self.training, accelerator, dry_run)
        needs.require(self.key)
        base = gather(self, files, resume, accelerator.device, reporter, allow_imports)
        loss = base.loss_of(self)
        with inside("data", self.data):
            source = self.data.look() if dry_run else self.data.open()
        for sentence in remarks(self.training, source, accelerator.device) if main else ():
            reporter.notice(sentence)
        self.check_data(source)
        precision = resolve_precision(self.training.precision, accelerator.device)
        outcome = TrainingOutcome(
            str(directory),
            "dry run" if dry_run else "training",
            seed=self.seed,
            device=str(accelerator.device),
            processes=accelerator.num_processes,
            precision=str(precision).removeprefix("torch."),
            data=DataFacts.of(source),
            parameters=count,
            needs=needs.text() if dry_run else None,
            **base.facts,
        )
        if resume:
            changes += changed_data(files, outcome.data, extend)
        if dry_run:
            return outcome if main else None
        measured: Mapping[str, Tensor] = {} if resume else self.measure(source)
        seed_everything(self.seed)
        fresh = self._fresh(files) if resume else self.model(measured)
        base.prepare(fresh.backbone)
        accelerator.wait_for_everyone()  # every process has looked at the directory before one of them fills it
        session = Session(files, source, reporter, precision, options.get("stop", lambda: False), self.training.steps)
        with files.written(before, main):
            entries = {**outcome.entries(), **environment(), "recipe_yaml": self.to_yaml()}
            if main and resume:
                if changes:
                    record_extension(files, changes, self.to_yaml())
                    reporter.notice(f"The run goes on with changes, which the manifest records: {'; '.join(changes)}.")
                files.reopen(entries)
            elif main:
                files.create(self.to_yaml(), measured, {**self.data.kept(), **base.kept}, entries)
            return self._run(session, fresh, loss, accelerator, outcome)

    def _run(
        self, session: Session, fresh: M, loss: Loss[M], accelerator: Accelerator, outcome: TrainingOutcome
    ) -> TrainingOutcome | None:
        """Train and report in a directory that is ready."""
        files, main = session.files, accelerator.is_main_process
        begun, status = time.perf_counter(), "failed"
        try:
            model = self._train(session, fresh, loss, accelerator)
            report = self.report(model, session) if main else None
            status = "finished"
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
            raise
        except DataError as error:
            status = DAMAGED
            raise RunFailed(f"{error} Then continue with --resume, on the data as they are then.") from error
        finally:
            if (main and status != "finished") or status == DAMAGED:
                with suppress(OSError):
                    files.update_manifest(status=status)
        if not main:
            return None
        seconds = round(time.perf_counter() - begun, 2)
        outcome = replace(outcome, status=status, finished=now(), report=report, seconds=seconds)
        session.finish(outcome.entries(), self.to_dict(), self.training.report)
        return outcome

    def _fresh(self, files: RunDirectory) -> M:
        """The model of a run with fresh weights, made with what was measured of the data when the run began."""
        with files.measured(self.measures) as measured:
            return self.model(measured)

    def _train(self, session: Session, fresh: M, loss: Loss[M], accelerator: Accelerator) -> M:
        """Train the model, with metrics, previews and the warning of a long run on the way."""
        settings, files, reporter = self.training, session.files, session.reporter
        trackers: Trackers | None = None
        pace = Pace(self.smaller_recipe)

        def on_step(progress: Progress[M]) -> None:
            nonlocal trackers
            step, steps = progress.step, progress.steps
            reporter.progress("train", step, steps, progress.loss)
            if trackers is None:
                files.cut_metrics(step - 1)
                trackers = Trackers(settings, files, self.to_dict(), step - 1)
            if (notice := pace.notice(step, steps)) is not None:
                reporter.notice(notice)
            if progress.loss is not None and progress.grad_norm is not None:
                line = {"loss": progress.loss, "lr": progress.lr, "grad_norm": progress.grad_norm}
                files.append_metrics({"step": step, **line, "seconds": round(progress.seconds, 3)})
                trackers.track(step, line)
            if settings.preview_every and step % settings.preview_every == 0 and step < steps:
                path = files.samples / f"step-{step:08d}.png"
                self.preview(progress.average, session, path, f"{files.name}, step {step} of {steps}")

        try:
            return train(
                fresh,
                session.source,
                loss,
                settings,
                conditioning=self.conditions(),
                seed=self.seed,
                accelerator=accelerator,
                checkpoints=Checkpoints(files.checkpoints, settings.keep, files.check_present),
                on_step=on_step if accelerator.is_main_process else lambda progress: None,
                stop=session.stop,
                report=reporter.notice,
            )
        finally:
            if trackers is not None:
                trackers.close()
