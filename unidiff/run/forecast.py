"""What a training will take, said before anything is made: memory and arithmetic, counted without numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unidiff.condition.network import conditions_of
from unidiff.data.base import OpenDataset
from unidiff.memory import PLENTY, as_bytes, memory_of, require_memory
from unidiff.text import count_of
from unidiff.training.device import has_bf16
from unidiff.training.execution import executed
from unidiff.training.power_average import LENGTHS
from unidiff.training.settings import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Forecast", "Pace", "disk_of_run", "forecast", "memory_of_weights", "remarks", "too_long"]

_NUMBER = 4  # bytes of a float32
_FIGURES = 50_000_000  # bytes
_PACE_SECONDS = 25.0  # of training, from which the rest is extrapolated
_SIDE = 512  # of the matrices whose product tells how fast the machine is


@dataclass(frozen=True)
class Forecast:
    """What a training needs at least. What a loss or a library keeps beside the network is not counted.

    Attributes:
        training: Its numbers.
        device: Where it runs.
        processes: Number of processes that share each batch.
        weights: Bytes of the weights with their gradients, average and moments.
        sample: Bytes that one sample of a batch leaves in the network for the gradient; None if it is not known.
        flops: Operations of one evaluation of the network on one sample; None if they are not known.
    """

    training: Training
    device: torch.device
    processes: int
    weights: int
    sample: int | None = None
    flops: int | None = None

    @property
    def share(self) -> int:
        """Samples that are in the memory of a device together."""
        return max(1, self.training.batch // (self.processes * self.training.accumulate))

    @property
    def memory(self) -> int:
        """Bytes on each device."""
        return self.weights + (self.sample or 0) * self.share

    def require(self, key: str) -> None:
        """Raise a ParameterError that names the network's key or the batch, if they surely do not fit."""
        require_memory(key, self.weights, "its weights and the optimiser", "Use a smaller network.", self.device)
        what = f"the network and its activations on {count_of(self.share, 'sample')}"
        remedy = "Lower the batch, or raise training.accumulate, which divides it."
        require_memory("training.batch", self.memory, what, remedy, self.device)

    def text(self) -> str:
        """Memory and time, in words; the time takes a moment to measure."""
        words = f"at least {as_bytes(self.memory)} of memory"
        if self.flops is None:
            return words
        # A gradient costs twice an evaluation.
        operations = 3 * self.flops * self.training.batch * self.training.steps / self.processes
        seconds = _duration(operations / _speed(self.device))
        return f"{words} and about {seconds} on {self.device}, as fast as it is now"


def memory_of_weights(count: int, training: Training) -> int:
    """Bytes of so many weights in training, with their gradients, averages and moments."""
    return _NUMBER * count * (3 + training.optimizer.moments + _powers(training))


def disk_of_run(count: int, training: Training) -> int:
    """Bytes of a run directory, about: checkpoints of so many weights, one unfinished, snapshots and figures."""
    snapshots = math.ceil(training.steps / training.posthoc_every) if training.posthoc_every else 0
    each = 2 + training.optimizer.moments + _powers(training)
    return _NUMBER * count * (each * (training.keep + 1) + _powers(training) * snapshots) + _FIGURES


def _powers(training: Training) -> int:
    """Averages that are kept for `posthoc_ema`."""
    return len(LENGTHS) if training.posthoc_every else 0


def forecast(
    count: int,
    sketch: Callable[[], nn.Module],
    shape: tuple[int, ...],
    training: Training,
    accelerator: Accelerator,
    operations: bool = False,
) -> Forecast:
    """Count what the training of a network needs.

    Args:
        count: Number of its weights.
        sketch: Makes the network on the meta device, where nothing is computed.
        shape: Of one sample.
        training: The numbers of the run.
        accelerator: Where it runs.
        operations: Count the operations and the memory of a batch, also of one that surely fits.
    """
    device = accelerator.device
    processes = accelerator.num_processes
    weights = memory_of_weights(count, training)
    if training.sharded:  # all but the average is divided
        weights = _NUMBER * count + (weights - _NUMBER * count) // processes
    least = Forecast(training, device, processes, weights)
    if not operations and 4 * PLENTY * math.prod(shape) * least.share < memory_of(device) // 2:
        return least
    try:
        network = sketch().train()
        sample, flops = _evaluated(network, executed(network, replace(training, compile=False)), shape, operations)
    except Exception:  # a network of the user's that looks at values, which the meta device has not
        return least
    return replace(least, sample=sample, flops=flops)


def _evaluated(
    network: nn.Module, parallel: nn.Module, shape: tuple[int, ...], operations: bool
) -> tuple[int, int | None]:
    """Bytes kept for the gradient by an evaluation on one sample, and its operations."""
    from torch.utils.flop_counter import FlopCounterMode

    own = {_storage(weight) for weight in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := _storage(tensor)) not in own:
            kept[storage] = tensor  # held, so that no other tensor gets its storage's address
        return tensor

    x = torch.zeros(1, *shape, device="meta")
    cond: dict[str, Any] = {entry.name: entry.null(1, x) for entry in conditions_of(network) or ()}
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if operations:
            with FlopCounterMode(display=False) as counter:
                parallel(x, torch.zeros(1), **cond)
        else:
            parallel(x, torch.zeros(1), **cond)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return size, counter.get_total_flops() if operations else None


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def remarks(training: Training, source: OpenDataset, device: torch.device) -> Iterator[str]:
    """What a user must know of the data, and what is allowed, but seldom meant."""
    if source.stand_in:
        yield source.stand_in
    if training.batch > (count := len(source)) and not source.sequential:
        times = "the sample is" if count == 1 else f"each of them is seen {training.batch / count:.3g} times"
        times = f"it is seen {training.batch} times" if count == 1 else times
        noun = "sample" if count == 1 else "samples"
        yield f"training.batch is {training.batch}, but the data have {count} {noun}: {times} in a step."
    names = source.class_names or ()
    if all(name.isdecimal() for name in names) and [*names] != sorted(names, key=int):
        pairs = ", ".join(f"{number} is {name}" for number, name in enumerate(names[:6]))
        yield f"Classes are numbered in the order of their names as texts: {pairs}{', ...' * (len(names) > 6)}."
    if training.warmup > training.steps:
        share = training.steps / training.warmup
        problem = f"training.warmup is {training.warmup}, more than the {count_of(training.steps, 'step')}"
        yield f"{problem}: the learning rate reaches {share:.2g} of lr only."
    if training.precision == "bf16" and not has_bf16(device):
        yield f"training.precision is bf16, which this {device.type} emulates, many times slower than fp32. Use auto."


class Pace:
    """How long a training in progress will take: said once, if it is hours.

    Args:
        smaller: Name of a smaller recipe, or None.
    """

    def __init__(self, smaller: str | None) -> None:
        self._smaller = smaller
        self._start = self._begun = time.perf_counter()
        self._first, self._done = 0, False  # the pace is measured from the step `_first`, since `_begun`

    def notice(self, step: int, steps: int) -> str | None:
        """After each step: the notice of a long run, or None."""
        now = time.perf_counter()
        if self._first == 0:
            self._first, self._begun = step, now  # the first step is slower
        if self._done or now - self._start <= _PACE_SECONDS or step <= self._first:
            return None
        self._done = True
        remaining = (now - self._begun) / (step - self._first) * (steps - step)
        return too_long(remaining, self._smaller) if remaining > 3600 else None


def too_long(seconds: float, smaller: str | None) -> str:
    """The notice of a run of many hours, with the name of a smaller recipe if there is one."""
    remedy = f" A smaller recipe: `unidiff run {smaller}`." if smaller else " Reduce training.steps to shorten it."
    return f"This run will take about {seconds / 3600:.1f} hours on this machine.{remedy} Ctrl-C saves it at any time."


@lru_cache
def _speed(device: torch.device) -> float:
    """Operations a second of a product of matrices, the best of three."""
    a = torch.ones(_SIDE, _SIDE, device=device)
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = max(best, 2 * _SIDE**3 / (time.perf_counter() - start))
    return best


def _duration(seconds: float) -> str:
    for unit, size in (("years", 3.2e7), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(1, round(seconds))} s"
