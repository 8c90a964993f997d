"""What a run builds on: its start, the parts that it trains, the teacher and the coupling of its objective."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from unidiff.backbone.low_rank import fresh_changes
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, RunError, UnidiffError, require
from unidiff.files import digest_of
from unidiff.pretrained import is_saved, local_folder
from unidiff.recipe.errors import nearest
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml
from unidiff.run.directory import RunDirectory
from unidiff.run.load import load
from unidiff.run.records import Origin
from unidiff.run.task import Reporter, differences
from unidiff.search_paths import expand
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.tied import load_tied, without_ties

if TYPE_CHECKING:
    from unidiff.run.execute import TrainingTask
    from unidiff.training.trainable import Loss

__all__ = ["BuildsOn", "check_built_on", "gather", "trained_names"]

# By name, as a `type` of a recipe is found: the conversion of networks is above this package.
_DIFFUSERS = "unidiff.interop.diffusers.weights"
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class BuildsOn:
    """What a run builds on, read.

    Attributes:
        facts: Fields of `TrainingOutcome`: where it is from.
        weights: Weights to start from, by name; None for fresh ones.
        kept: Files for the run directory.
        train: The parameters to train, by name; None for all.
        teacher: The frozen model that the objective needs.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] | None = None
    kept: Mapping[str, bytes] = field(default_factory=dict)
    train: Collection[str] | None = None
    teacher: NeuralDenoiser | None = None

    def loss_of(self, task: TrainingTask[Any]) -> Loss[Any]:
        """The loss of a task, with its teacher if it has one."""
        return task.loss() if self.teacher is None else task.taught(self.teacher)

    def prepare(self, network: nn.Module) -> None:
        """Set the weights of a network, and freeze what is not trained."""
        if self.weights is not None:
            network.load_state_dict(self.weights)
        if self.train is not None:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name in self.train)


def gather(
    task: TrainingTask[Any],
    files: RunDirectory,
    resume: bool,
    device: torch.device,
    reporter: Reporter,
    allow_imports: bool,
) -> BuildsOn:
    """Read what a run builds on; of a run that is continued, what it began with.

    Args:
        task: What is run.
        files: Its directory.
        resume: Whether it is continued: the weights of its start are then those that it keeps.
        device: Where the teacher is to be.
        reporter: Receives notices.
        allow_imports: Accept classes from outside unidiff in the recipe of the teacher.

    Raises:
        ParameterError: If `train` has a name that matches nothing.
        RunError: If a model is missing, does not fit, or is not the one that the run began with.
    """
    facts: dict[str, Any] = {}
    kept: dict[str, bytes] = {}
    weights = train = model = None
    before = files.read_manifest() if resume else None
    if before is None and os.path.realpath(files.path) in [
        os.path.realpath(expand(path, "path")) for path in task.builds_on
    ]:
        problem = "the recipe builds on the run in this directory, which would be replaced"
        raise RunError(f"{files.path}: {problem}. Choose another directory with --out.")
    if task.train is not None:
        train = trained_names(network := task.sketch(), task.train)
        facts["trained"] = sum(value.numel() for name, value in network.named_parameters() if name in train)
    elif task.start is not None:
        trained = sum(value.numel() for value in task.sketch().parameters() if value.requires_grad)
        if trained < task.count_weights():  # the network freezes the rest itself
            facts["trained"] = trained
    if task.start is not None and before is not None:
        files.check_kept()
        weights, facts["start"] = load_tied(files.start), before.start
    elif task.start is not None:
        weights, step = _read_start(task, task.sketch(), reporter.notice)
        tensors, ties = without_ties(weights)
        content = save(tensors, ties or None)
        kept[files.start.name] = content
        facts["start"] = Origin(task.start, digest_of([content]), step)
    if task.teacher is not None:
        facts["teacher"], model = _read_teacher(task.teacher, device, allow_imports, reporter.notice)
        if before is not None and before.teacher is not None and before.teacher.digest != facts["teacher"].digest:
            problem = f"it has changed since this run began ({before.teacher.digest}, step {before.teacher.step})"
            raise RunError(f"teacher: {task.teacher}: {problem}. Restore it, or start another run with --out.")
    coupling: Any = getattr(task.loss(), "coupling", None)  # of the objective of a generative model alone
    if coupling is not None and (digests := coupling.digests()):
        facts["coupling"] = digests
        for name, began in before.coupling.items() if before is not None else ():
            if digests.get(name) != began:
                problem = f"the file has changed since this run began ({began})"
                raise RunError(f"objective.coupling.{name}: {problem}. Restore it, or start another run with --out.")
    return BuildsOn(facts, weights, kept, train, model)


def check_built_on(task: TrainingTask[Any], reporter: Reporter, device: torch.device, allow_imports: bool) -> None:
    """Raise the error with which `gather` stops a new run whose start or teacher is missing or does not fit."""
    if task.start is not None:
        _read_start(task, task.sketch(), reporter.notice)
    if task.teacher is not None:
        task.taught(_read_teacher(task.teacher, device, allow_imports, reporter.notice)[1])


def trained_names(network: nn.Module, patterns: Collection[str]) -> set[str]:
    """The parameters of a network that names or wildcards of modules or parameters stand for.

    Raises:
        ParameterError: If there are no patterns, or one of them matches nothing.
    """
    require(len(patterns) > 0, "train", list(patterns), "null, or a list of at least one name")
    names, chosen = [name for name, _ in network.named_parameters()], set[str]()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not found:
            parts = [name for name, _ in network.named_modules() if name] + names
            tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            problem = f"{pattern!r} matches no parameter of the network.{nearest(pattern, parts)} Its parts: {tops}."
            raise ParameterError("train", problem)
        chosen |= found
    return chosen


def _read_start(
    task: TrainingTask[Any], network: nn.Module, report: Callable[[str], None]
) -> tuple[dict[str, Tensor], int | None]:
    """Weights for a network, the averaged ones of a run or those of a folder of diffusers, and their step."""
    path, step = expand(str(task.start), "start"), None
    if is_saved(str(task.start)):
        path = local_folder(path, False)
    files = RunDirectory(path)
    if files.exists():
        checkpoint = Checkpoints(files.checkpoints).load(report, to_train=False)
        if checkpoint is None:
            raise RunError(f"start: {path}: this run has no checkpoint yet. Train it with `unidiff run --resume`.")
        weights, step = dict(checkpoint.ema), checkpoint.step
    elif os.path.isdir(path) and any(os.path.isfile(path / name) for name in ("model_index.json", "config.json")):
        try:
            weights = importlib.import_module(_DIFFUSERS).read_weights(path, network)
        except UnidiffError as error:
            raise RunError(f"start: {error}") from error
    else:
        raise RunError(f"start: {path}: neither a run directory nor a folder that diffusers saved. Correct the path.")
    weights = {**fresh_changes(network), **weights}
    if (begun := getattr(network, "weights_from", None)) is not None:  # with control branches
        weights = begun(weights)
    _check_fit(str(path), weights, network.state_dict())
    if files.exists():
        name, text = read_source(files.recipe)
        source, new = read_yaml(text, name).plain(), task.to_dict()
        parts = [name for name in ("process", "parameterization", "noise_condition", task.key) if name in new]
        if changed := differences({name: source.get(name) for name in parts}, {name: new[name] for name in parts}):
            report(f"start: {path} was trained as another model: {'; '.join(changed)}.")
    return weights, step


def _check_fit(path: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise a RunError that names the weights that differ from those of the network in name or shape."""
    pairs = {name: (tuple(weights[name].shape), tuple(expected[name].shape)) for name in weights if name in expected}
    groups = {
        "missing": [name for name in expected if name not in weights],
        "unknown": [name for name in weights if name not in expected],
        "of another shape": [f"{name} {there} (here {here})" for name, (there, here) in pairs.items() if there != here],
    }
    if problems := [f"{what}: {_some(names)}" for what, names in groups.items() if names]:
        problem = f"its weights are not those of the network in the recipe; {'; '.join(problems)}"
        raise RunError(f"start: {path}: {problem}. Use the same network, or leave start out.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read_teacher(
    path: str, device: torch.device, allow_imports: bool, report: Callable[[str], None]
) -> tuple[Origin, NeuralDenoiser]:
    try:
        run = load(path, device="cpu", allow_imports=allow_imports, report=report)
        model = run.denoiser
    except UnidiffError as error:
        raise RunError(f"teacher: {error}") from error
    return Origin(path, run.digest, run.step), model.to(device)
