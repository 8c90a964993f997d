"""The training loop: one for every process, parameterization, objective and backbone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import torch
from torch import Tensor, nn

from unidiff.arguments import plain_arguments
from unidiff.condition.check import check_all_made
from unidiff.data.adapt import Data, as_open_dataset
from unidiff.data.base import OpenDataset
from unidiff.errors import RunFailed, require
from unidiff.memory import enough_memory
from unidiff.noise import global_states_kept
from unidiff.precision import precise
from unidiff.training.batches import Batch, BatchPlan, stream_seed
from unidiff.training.checkpoint import Checkpoint, Checkpoints, diverged, require_like
from unidiff.training.clipping import all_finite, clip_gradient
from unidiff.training.device import arithmetic, resolve_precision, seed_device
from unidiff.training.ema import EMA
from unidiff.training.execution import divided, executed, placed, to_train
from unidiff.training.losses import LossInTraining
from unidiff.training.processes import accelerator_for, any_process, together
from unidiff.training.settings import Training
from unidiff.training.sharding import local, sharded, whole
from unidiff.training.trainable import Conditions, Loss, Trained, check_network

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Interrupted", "Progress", "accelerator_for", "train"]

_LESS_MEMORY = (
    "Raise training.accumulate, which divides each batch into parts, or lower training.batch. "
    "The checkpoints that had been saved are as they were."
)
# A network of random weights has a loss of about the variance of what it predicts, and noise of a batch changes it by
# less than a factor of 10; a loss a thousand times larger at the end is no noise.
_EXPLODED = 1000.0
_DROPOUT = 2  # a stream of the run's seed beside those of BatchPlan


class Interrupted(Exception):
    """Training was stopped by `stop`; a checkpoint of the last whole step was saved.

    Attributes:
        step: Optimiser steps done.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"stopped after step {step}")


@dataclass(frozen=True)
class Progress(Generic[Trained]):
    """Where a training run is, after a step.

    Attributes:
        step: Optimiser steps done.
        steps: Optimiser steps in all.
        loss: Mean loss since the last line of metrics, over all processes; None between lines.
        lr: Learning rate of the step.
        grad_norm: Norm of the gradient before clipping; None between lines.
        seconds: Seconds of training so far, earlier parts of a resumed run included.
        average: The model with averaged weights, for previews; not to be changed.
    """

    step: int
    steps: int
    loss: float | None
    lr: float
    grad_norm: float | None
    seconds: float
    average: Trained


@plain_arguments
@enough_memory(_LESS_MEMORY)
@together()
def train(
    denoiser: Trained,
    source: Data,
    objective: Loss[Trained],
    settings: Training,
    *,
    conditioning: Conditions | None = None,
    seed: int = 0,
    accelerator: Accelerator | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Progress[Trained]], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | bool | None = None,
) -> Trained:
    """Train a denoiser's network in place and return the model with averaged weights.

    Parameters that do not require gradients stay as they are.

    Data order, times, noise, conditions and dropout of a step are functions of (seed, step). A run that is stopped and
    called again with the same `checkpoints` therefore ends with the same weights, bit for bit, as one that was not.

    The global random states of torch, NumPy and Python are afterwards what they were before.

    Args:
        denoiser: The model, a classifier or an autoencoder; its network is moved to the accelerator's device.
        source: The data: a tensor, a pair (samples, labels), a PyTorch Dataset, an iterable, or data of
            `unidiff.data`; see `unidiff.data.as_open_dataset`.
        objective: What to minimise.
        settings: The numbers of the run.
        conditioning: What the network is conditioned on; None for an unconditional model.
        seed: Seed of everything random in training.
        accelerator: Devices and precision; by default the best device of this machine.
        checkpoints: Where to save, and to resume from; None saves nothing.
        on_step: Called after every step.
        stop: Called after every step; True saves a checkpoint and raises Interrupted.
        report: Receives a sentence for each damaged checkpoint.
        progress: Called with (steps done, steps in all) after each step; True draws a bar.

    Raises:
        Interrupted: If `stop` returned True.
        ParameterError: If the data do not fit the network, or the objective the settings or the process.
        DataError: If the data cannot be conditioned on or coupled, or an iterable ends early.
        RunFailed: If the loss or a weight is not finite, the last loss is more than a thousand times 1 + |the first|,
            a checkpoint cannot be written, or another process has ended.
    """
    settings.check(objective)
    source = as_open_dataset(source)
    check_network(denoiser, source)
    if conditioning is not None:
        conditioning.check(source, denoiser.classes)
    else:
        check_all_made((), denoiser)
    accelerator = accelerator or accelerator_for(settings, report=report)
    allowed = "an Accelerator of the package accelerate"
    require(hasattr(accelerator, "prepare_model"), "accelerator", accelerator, allowed)
    if callable(progress):
        told, on_step = on_step, lambda now: (told(now), progress(now.step, now.steps))[0]
    with global_states_kept(accelerator.device):
        return _train(
            denoiser, source, objective, settings, conditioning, seed, accelerator, checkpoints, on_step, stop, report
        )


def _train(
    denoiser: Trained,
    source: OpenDataset,
    objective: Loss[Trained],
    settings: Training,
    conditioning: Conditions | None,
    seed: int,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None,
    on_step: Callable[[Progress[Trained]], None],
    stop: Callable[[], bool],
    report: Callable[[str], None],
) -> Trained:
    """As `train`, with checked arguments; the global random state of torch is changed."""
    device, main = accelerator.device, accelerator.is_main_process
    network = placed(denoiser.backbone, device, settings)
    average = EMA(network)
    averaged = denoiser.with_backbone(average.network)
    loss = LossInTraining(objective, denoiser, source, device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=device.type != "mps"
    )
    done, seconds, seen, summed = 0, 0.0, 0, 0
    # The losses of the `summed` steps since the last line of metrics; on the device: the host waits for none.
    window = torch.zeros((), dtype=precise(device), device=device)
    first = window  # the loss of the first step, which that of the last is held against

    def restore(saved: Checkpoint) -> None:
        nonlocal done, first, seconds, seen, summed
        network.load_state_dict(saved.model)
        average.network.load_state_dict(saved.ema)
        require_like(saved.optimizer, optimizer)
        # The settings are those of this optimiser, and not those of the file.
        optimizer.load_state_dict({**saved.optimizer, "param_groups": optimizer.state_dict()["param_groups"]})
        loss.restore(saved.objective)
        first = torch.tensor(float(saved.extra.get("first_loss", math.nan)))
        window.fill_(float(saved.extra["loss_sum"]))
        done, seconds = saved.step, float(saved.extra["seconds"])
        seen = int(saved.extra.get("seen", done * settings.batch))
        summed = int(saved.extra.get("summed", done % settings.log_every if window else 0))  # not in 0.1.0

    if checkpoints is not None:
        checkpoints.load(report if main else lambda text: None, device, restore=restore)
    to_train(network)
    if divided(settings, accelerator):
        average, optimizer = sharded(network, average, optimizer, accelerator)
    weights, parallel = list(network.parameters()), executed(network, settings, accelerator)
    precision = resolve_precision(settings.precision, device)
    model = denoiser.with_backbone(parallel)
    noise_shape = objective.noise_shape(denoiser, source.shape)
    data = Batch(source, source.to(device), torch.empty(0))
    count, offset = None if source.sequential else len(source), seen - done * settings.batch
    plan = BatchPlan(seed, settings.batch, count, offset)
    start = time.perf_counter() - seconds

    for step in range(done + 1, settings.steps + 1):
        lr = settings.lr_at(step - 1)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with arithmetic(precision, device):
            window += _accumulate_gradients(
                model, parallel, data, loss, noise_shape, conditioning, plan, step - 1, settings, accelerator
            )
        summed += 1
        if step == 1:
            first = window.clone()
        norm = clip_gradient(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update(network, settings.ema_at(step - 1))
        loss.end_step(accelerator, average.network, step / settings.steps)

        last = step == settings.steps
        stopping = any_process(stop(), accelerator)
        logging = last or step % settings.log_every == 0
        saving = last or stopping or step % settings.checkpoint_every == 0
        loss_sum = accelerator.reduce(window, "mean").item() if logging or saving else 0.0
        if logging or saving:
            finite = math.isfinite(loss_sum) and bool(all_finite(map(local, weights)))
            if any_process(not finite, accelerator):
                raise RunFailed(diverged(step, "the loss or a weight is not finite", checkpoints))
        mean = logged = None
        if logging:
            mean, logged = loss_sum / summed, whole(norm).item()
            if last and mean > _EXPLODED * (1 + abs(begun := first.item())):
                problem = f"the network diverged: its loss is {mean:.3g}, after {begun:.3g} in the first step"
                raise RunFailed(diverged(step, problem, checkpoints))
            window.zero_()
            loss_sum, summed = 0.0, 0
        seconds = time.perf_counter() - start
        if saving or (settings.preview_every and step % settings.preview_every == 0):
            average.gather()
        # Metrics before the checkpoint: after a kill between the two they are written again, and never missing.
        on_step(Progress(step, settings.steps, mean, lr, logged, seconds, averaged))
        states = whole((network.state_dict(), optimizer.state_dict())) if saving else ({}, {})
        if saving and checkpoints is not None and main:
            extra = {"seconds": seconds, "loss_sum": loss_sum, "summed": summed, "first_loss": first.item()}
            extra["seen"] = offset + step * settings.batch
            checkpoints.save(Checkpoint(step, states[0], average.network.state_dict(), states[1], extra, loss.state()))
        if saving:
            accelerator.wait_for_everyone()
        if stopping and not last:
            raise Interrupted(step)
    network.eval()
    return averaged


def _accumulate_gradients(
    model: Trained,
    parallel: nn.Module,
    data: Batch,
    loss: LossInTraining,
    noise_shape: tuple[int, ...],
    conditioning: Conditions | None,
    plan: BatchPlan,
    step: int,
    settings: Training,
    accelerator: Accelerator,
) -> Tensor:
    """Backward through this process's share of the batch of a step, in parts; the share's mean loss."""
    rank, processes, parts = accelerator.process_index, accelerator.num_processes, settings.accumulate
    batch = data.of(plan.indices(step))
    uniform = plan.uniform(step)
    # For what a coupling reads, alike in all processes.
    seed_device(stream_seed(plan.seed, _DROPOUT, step, 0), accelerator.device)
    share = len(batch.indices) // processes
    noise = loss.noise(batch, plan, step, noise_shape, range(rank * share, (rank + 1) * share))
    if rank:
        seed_device(stream_seed(plan.seed, _DROPOUT, step, rank), accelerator.device)
    batch.resident.prefetch(plan.indices(step + 1).chunk(processes)[rank])
    total = torch.zeros((), device=accelerator.device)
    chance = uniform if conditioning is None else plan.condition_draws(step, conditioning.draws)
    rows = torch.arange(plan.batch)
    mine = [values.chunk(processes)[rank].chunk(parts) for values in (rows, uniform, chance)]
    for part, (row, draw, drawn, eps) in enumerate(zip(*mine, noise.chunk(parts))):
        x, label = batch.part(row, accelerator.device)
        cond = {} if conditioning is None else conditioning.conditions(x, label, drawn)
        check_all_made(cond, model)
        cond = {name: value.to(accelerator.device, non_blocking=True) for name, value in cond.items()}
        with nullcontext() if part == parts - 1 else accelerator.no_sync(parallel):
            mean = loss.losses(model, x, draw, eps, **cond).mean() / parts
            accelerator.backward(mean)
        total += mean.detach()
    return total
