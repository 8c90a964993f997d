"""An objective in training: the noise of each sample by its coupling, the state of its times, and its stages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unidiff.data.base import OpenDataset
from unidiff.errors import require_shape
from unidiff.training.batches import Batch, BatchPlan
from unidiff.training.trainable import Loss, Trained

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LossInTraining"]

_STAGE = "stage"  # in a checkpoint: how many stages are done, and, with a dot, the weights at the end of the last


class LossInTraining:
    """What training minimises, with what it has learnt on the way.

    A loss without `coupling` or `times`, such as that of an autoencoder, is used as it is.

    Args:
        objective: What to minimise.
        model: The model in training.
        source: The opened data.
        device: Where losses are computed.

    Raises:
        ParameterError: If the objective is not defined on the model's process.
        DataError: If the data cannot be coupled.
    """

    def __init__(self, objective: Loss[Trained], model: Trained, source: OpenDataset, device: torch.device) -> None:
        full: Any = objective  # a Loss need not be an Objective, nor its model have a process
        process: Any = getattr(model, "process", None)
        self._objective, self._process, self._device, self._model = full, process, device, model
        self._stages, self._done = getattr(objective, "stages", 1), 0
        self._at_stage: nn.Module | None = None  # the averaged network at the end of the last stage
        self._coupling = getattr(objective, "coupling", None)
        self._state = None
        self._recorded: list[Tensor] = []
        if self._coupling is not None:
            full.check_model(model)
            self._coupling.check_shape(source.shape)
            self._coupling.check_data(source)
            self._state = full.times.state(process, device)

    def noise(self, batch: Batch, plan: BatchPlan, step: int, shape: tuple[int, ...], rows: range) -> Tensor:
        """The noise of some rows of the batch of a step, (number of rows, *shape)."""
        if self._coupling is None or not self._coupling.reads_batch:
            return plan.noise(step, shape, rows, self._device)
        noise = plan.noise(step, shape)
        coupled: Tensor = self._coupling.couple(batch, batch.indices, noise, self._process.basis)
        require_shape("coupling", "noise", coupled.shape, noise.shape)
        return coupled[rows.start : rows.stop].to(self._device, non_blocking=True)

    def losses(self, model: Trained, x: Tensor, uniform: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample, (B,), times the factor of its time; see `Loss.batch_losses`."""
        if self._state is None:
            losses: Tensor = self._objective.batch_losses(model, x, uniform, noise, **cond)
            require_shape("objective", "losses", losses.shape, x.shape[:1])
            return losses
        rows, factors = self._state.draw(uniform)
        losses = self._objective.losses_at(model, x, rows, noise, **cond)
        require_shape("objective", "losses", losses.shape, x.shape[:1])
        self._recorded.append(torch.stack([rows.to(factors.dtype), losses.detach().to(factors.dtype)], dim=1))
        return losses * factors.to(losses.dtype)

    def end_step(self, accelerator: Accelerator, average: nn.Module, share: float) -> None:
        """Record the losses of a step: those of all parts and all processes, in the order of the batch.

        Args:
            accelerator: The processes.
            average: The network with the averaged weights after the step.
            share: Of the training that is done. The last stage is twice as long as the others.
        """
        while min(int(share * (self._stages + 1) + 1e-9), self._stages - 1) > self._done:
            self._next(copy.deepcopy(average))
        if self._state is not None:
            rows, losses = accelerator.gather(torch.cat(self._recorded)).unbind(1)
            self._state = self._state.record(rows.long(), losses)
            self._recorded.clear()

    def _next(self, network: nn.Module) -> None:
        """Begin the next stage with the averaged network at the end of this one."""
        self._at_stage, self._done = network.eval().requires_grad_(False), self._done + 1
        self._objective = self._objective.next_stage(self._model.with_backbone(network))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        kept = {} if self._state is None else self._state.tensors()
        if self._at_stage is not None:
            kept |= {f"{_STAGE}.{name}": value for name, value in self._at_stage.state_dict().items()}
            kept[_STAGE] = torch.tensor(self._done)
        return kept

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what a checkpoint kept."""
        tensors = dict(tensors)
        weights = {name: tensors.pop(name) for name in [*tensors] if name.startswith(f"{_STAGE}.")}
        for _ in range(int(tensors.pop(_STAGE, torch.tensor(0)))):  # whose objectives but the last are passed over
            network = copy.deepcopy(self._model.backbone)
            network.load_state_dict({name.removeprefix(f"{_STAGE}."): value for name, value in weights.items()})
            self._next(network)
        if self._state is not None and tensors:
            own = {name: value.shape for name, value in self._state.tensors().items()}
            if {name: value.shape for name, value in tensors.items()} != own:
                raise ValueError("the state of the objective is that of another one")
            self._state = self._state.restored(tensors)
