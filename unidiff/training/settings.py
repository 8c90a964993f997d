"""The numbers of a training run: the recipe's `training` section."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require, require_whole

if TYPE_CHECKING:
    from unidiff.training.trainable import Loss, Trained

__all__ = ["Precision", "Training"]

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Training(PlainArguments):
    """How a network is trained.

    Args:
        steps: Optimiser steps, at least 1.
        batch: Samples per optimiser step, over all devices and accumulated parts together; at least 1.
        lr: Peak learning rate of AdamW, above 0.
        warmup: Steps over which the learning rate grows linearly from 0; at least 0.
        lr_final: Learning rate at the end of the cosine decay as a fraction of `lr`; 1 keeps it constant.
        weight_decay: Decoupled weight decay of AdamW, at least 0.
        clip: Largest gradient norm; larger gradients are scaled down. None for no limit.
        ema: Decay of the averaged weights, in [0, 1): the weights that samples are drawn with. It is reached slowly:
            after step s = 0, 1, ... the decay is at most (1 + s) / (10 + s).
        accumulate: Parts that a batch is split into on each device, to save memory; at least 1.
        precision: Number format of the network's arithmetic. auto is bf16 where the hardware has it, else fp32.
        compile: Compile the network with torch.compile first. Worth it on GPUs for long runs.
        channels_last: Keep the weights of convolutions with the channels as the last axis in memory, which tensor cores
            of GPUs want; with bf16. Dropout then has other draws.
        gradient_checkpointing: Keep the inputs of the network's blocks alone for the backward pass, which computes
            their activations a second time: less memory, a third more time, the same numbers.
        sharded: Divide weights, gradients and moments between the processes that train together (FSDP), for networks
            that a device does not hold; only their average is whole in each. Checkpoints are those of one process.
        log_every: Steps between lines of metrics.jsonl, at least 1.
        preview_every: Steps between intermediate sample grids; 0 for none.
        checkpoint_every: Steps between checkpoints, at least 1. The last step always makes one.
        keep: Newest checkpoints kept, at least 1.
        tensorboard: Write TensorBoard events.
        report: Write report.html, the page of the run, at its end; see docs/report.md.
        wandb: Name of a Weights & Biases project to log to; needs `pip install 'unidiff-diffusion[wandb]'`.
    """

    steps: int
    batch: int = 128
    lr: float = 2e-4
    warmup: int = 0
    lr_final: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float = 0.999
    accumulate: int = 1
    precision: Precision = "auto"
    compile: bool = False
    channels_last: bool = False
    gradient_checkpointing: bool = False
    sharded: bool = False
    log_every: int = 10
    preview_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2
    tensorboard: bool = True
    report: bool = True
    wandb: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "checkpoint_every", "keep"):
            require_whole(name, getattr(self, name), 1, 1_000_000_000 if name != "batch" else 1_000_000)
        for name in ("warmup", "preview_every"):
            require_whole(name, getattr(self, name), 0)
        require(self.precision in get_args(Precision), "precision", self.precision, f"one of {get_args(Precision)}")
        require(0 < self.lr < math.inf, "lr", self.lr, "a number > 0")
        require(0 <= self.lr_final <= 1, "lr_final", self.lr_final, "a number from 0 to 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "a number >= 0")
        require(self.clip is None or 0 < self.clip < math.inf, "clip", self.clip, "a number > 0, or null")
        require(0 <= self.ema < 1, "ema", self.ema, "a number in [0, 1)")
        require(
            self.batch % self.accumulate == 0, "accumulate", self.accumulate, f"a divisor of the batch ({self.batch})"
        )

    def check(self, objective: Loss[Trained]) -> None:
        """Raise a ParameterError if the objective cannot be trained so: compiled, sharded, or on so large a batch."""
        if (coupling := getattr(objective, "coupling", None)) is not None:  # a Loss need not have one
            coupling.check_batch(self.batch)
        if self.sharded and getattr(objective, "stages", 1) > 1:
            problem = f"{type(objective).__name__} begins a stage with the whole average. Use sharded: false."
            raise ParameterError("sharded", problem)
        ways = {"compile": "which torch.compile cannot do", "sharded": "for which its weights must be whole"}
        for name, why in ways.items() if objective.differentiates_twice else ():
            if getattr(self, name):
                problem = f"{type(objective).__name__} differentiates the network twice, {why}. Use {name}: false."
                raise ParameterError(name, problem)

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, ..., steps - 1: linear warm-up, then half a cosine (Loshchilov & Hutter 2017)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * progress)))

    def ema_at(self, step: int) -> float:
        """Decay of the average after step 0, 1, ...: it grows to `ema`, so a short run forgets its initial weights."""
        return min(self.ema, (1 + step) / (10 + step))
