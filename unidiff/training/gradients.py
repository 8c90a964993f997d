"""The gradient of a step: of this process's share of the batch, in parts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unidiff.condition.check import check_all_made
from unidiff.training.batches import Batch, BatchPlan, stream_seed
from unidiff.training.device import seed_device
from unidiff.training.losses import LossInTraining
from unidiff.training.settings import Training
from unidiff.training.trainable import Conditions, Trained

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["accumulate_gradients"]

_DROPOUT = 2  # a stream of the run's seed beside those of BatchPlan


def accumulate_gradients(
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
