"""A model that was trained in code, written as a run that the command line and `unidiff.load` take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from unidiff.arguments import plain_arguments
from unidiff.backbone.low_rank import low_rank_layers
from unidiff.conditioning.base import Conditioning
from unidiff.data.base import Dataset
from unidiff.data.unavailable import Unavailable
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError, RunError, require
from unidiff.machine import now
from unidiff.objective.base import Objective
from unidiff.objective.denoising import Denoising
from unidiff.recipe.blueprint import Blueprint
from unidiff.run.directory import RunDirectory
from unidiff.run.environment import environment
from unidiff.run.extension import SAVED
from unidiff.run.shipped import require_own
from unidiff.solver.sample import Sampling
from unidiff.tasks.generation import Generation
from unidiff.training.checkpoint import Checkpoint, Checkpoints
from unidiff.training.settings import Training

__all__ = ["save"]


@plain_arguments
def save(
    model: NeuralDenoiser,
    directory: str | Path,
    *,
    data: Dataset | None = None,
    conditioning: Conditioning | None = None,
    objective: Objective | None = None,
    training: Training | None = None,
    sampling: Sampling | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model, as a run: `load`, `unidiff sample`, `compare`, `evaluate`, `export`, `report` and others take it.

    The weights are those of the model as it is; pass what `train` returned, whose weights are averaged. Training cannot
    be continued from it bit for bit, but a recipe can begin with its weights: `start: DIRECTORY`.

    Args:
        model: The model. Its network is a `Backbone`, so that a recipe can name it and its arguments.
        directory: Where to; it must not hold another run.
        data: The data set that it was trained on, for `evaluate`, `likelihood` and all else that compares with data:
            one of `unidiff.data`, or of your own below `unidiff.data.Dataset`. None saves the model without.
        conditioning: What it was conditioned on in training; None for an unconditional model.
        objective: What training minimised, for the record; None is Denoising().
        training: The settings of training, for the record; None if they are not known.
        sampling: How samples are drawn by default; None for the usual solver and grid.
        overwrite: Replace a run that is there.

    Returns:
        The directory.

    Raises:
        ParameterError: If a recipe cannot describe the model.
        RunError: If it cannot be written there.
    """
    network: Any = model.backbone
    arguments = getattr(network, "arguments", None)
    if arguments is None:
        problem = f"its network, a {type(network).__name__}, is none that a recipe can name"
        raise ParameterError("model", f"{problem}. Derive it from unidiff.Backbone.")
    if any(isinstance(module, nn.Module) for module in arguments.values()):
        problem = f"its network, a {type(network).__name__}, is made of another network, which a recipe cannot name"
        raise ParameterError("model", f"{problem}. Train it by a recipe instead: see its keys low_rank and control.")
    if data is None:
        data = Unavailable(tuple(network.shape), model.classes)
    shape = tuple(network.shape)
    require(tuple(data.shape) == shape, "data", data, f"data with samples of the network's shape, {shape}")
    task = Generation(
        data=data,
        process=model.process,
        parameterization=model.parameterization,
        backbone=Blueprint(type(network), {name: value for name, value in arguments.items() if name != "shape"}),
        conditioning=conditioning,
        objective=objective or Denoising(),
        training=training or Training(steps=1),
        sampling=sampling or Sampling(),
        noise_condition=model.noise_condition,
    )
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    if broken := next((name for name, value in weights.items() if not bool(value.isfinite().all())), None):
        raise ParameterError("model", f"its weight {broken!r} has NaN or infinity. Train it again, with a smaller lr.")
    expected = {name: value.shape for name, value in task.sketch().state_dict().items()}
    if low_rank_layers(network):
        remedy = "Merge them into the weights first, with merge_low_rank(model.backbone) of unidiff.backbone.low_rank"
        raise ParameterError("model", f"its network has changes of low rank. {remedy}.")
    if any(name.endswith(".token.new") for name in weights):
        raise ParameterError(
            "model", "it has a word of `add_word`, which a run cannot have. Keep its vector by torch.save."
        )
    if {name: value.shape for name, value in weights.items()} != expected:
        remedy = f"Save the network as it was built, for {data}."
        raise ParameterError("model", f"its weights are not those of a new {type(network).__name__}. {remedy}")
    files, recipe = RunDirectory(require_own(directory)), task.to_yaml()
    if files.exists() and not overwrite:
        problem = "a run is already there. Pass overwrite=True to replace it, or another directory"
        raise RunError(f"{files.path}: {problem}.")
    size = sum(value.numel() * value.element_size() for value in weights.values())
    with files.written(files.check(False, overwrite, size + 1_000_000), main=True):
        entries = {"status": SAVED, "parameters": task.count_weights(), **environment(), "recipe_yaml": recipe}
        files.create(recipe, model.process.measured(), data.kept(), {**entries, "finished": now()})
        extra = {"seconds": 0.0, "loss_sum": 0.0}
        steps = 0 if training is None else training.steps
        Checkpoints(files.checkpoints, may_write=files.check_present).save(Checkpoint(steps, {}, weights, {}, extra))
    return files.path
