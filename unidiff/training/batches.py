"""What is random in training, as a function of (seed, step) alone: so a resumed run is the same run.

It does not depend on how many processes share a batch, on their devices, or on what was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unidiff.data.base import OpenDataset
from unidiff.philox import Streams, blocks_for, normal

__all__ = ["Batch", "BatchPlan", "stream_seed"]

_ORDER, _TIMES, _CONDITION = 0, 1, 3  # separate streams of one seed; the loop's dropout is 2
_STEPS, _NUMBERS = 16, 2**14  # the most that are drawn together
_TRAINING = 1  # the purpose of a stream of noise; those of samples have 0


def stream_seed(seed: int, *key: int) -> int:
    """A 63-bit seed that is a well-mixed function of integers >= 0, those of the key below 2^32.

    SeedSequence joins 32-bit words, so the high ones of `seed` come last: elsewhere they would be taken for the key.
    """
    high = [seed >> 32] if seed >> 32 else []
    entropy = np.array([seed % 2**32, *key, *high], dtype=np.uint32)  # a list of integers takes thrice as long
    words = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(seed, _ORDER, epoch))
    return torch.randperm(count, generator=generator)


def _together(step: int, numbers: int) -> range:
    """The steps that are drawn together with this one, where each draws so many numbers.

    Few numbers are drawn for several steps at once: what a draw costs then hardly depends on how many there are.
    """
    count = max(1, min(_STEPS, _NUMBERS // max(1, numbers)))
    return range(step // count * count, step // count * count + count)


@lru_cache(maxsize=2)
def _indices(plan: BatchPlan, step: int) -> Tensor:
    start = plan.offset + step * plan.batch
    stop = start + plan.batch
    if plan.count is None:
        return torch.arange(start, stop)
    epochs = range(start // plan.count, (stop - 1) // plan.count + 1)
    begins = ((epoch, epoch * plan.count) for epoch in epochs)
    return torch.cat(
        [_order(plan.seed, epoch, plan.count)[max(0, start - begin) : stop - begin] for epoch, begin in begins]
    )


@lru_cache(maxsize=2)
def _uniform(seed: int, steps: range, batch: int) -> Tensor:
    """The draws of `BatchPlan.uniform` for several steps, (steps, B)."""
    generators = (torch.Generator().manual_seed(stream_seed(seed, _TIMES, step)) for step in steps)
    offsets = torch.cat([torch.rand(1, generator=own, dtype=torch.float64) for own in generators])
    return (offsets[:, None] + torch.arange(batch, dtype=torch.float64) / batch) % 1


def _noise(seed: int, steps: range, rows: range, size: int, device: torch.device) -> Tensor:
    """The noise of `BatchPlan.noise` for several steps, (steps, rows, size)."""
    first, blocks = rows.start * blocks_for(size), len(rows) * blocks_for(size)
    streams = (Streams([seed], purpose=_TRAINING, part=step) for step in steps)
    words = torch.stack([stream.words(first, blocks, device) for stream in streams])
    return normal(words.view(len(steps), len(rows), -1))[..., :size].float()


_kept_noise = lru_cache(maxsize=2)(_noise)


@dataclass(frozen=True)
class BatchPlan:
    """Which samples, times and noises make the batch of a step.

    Args:
        seed: The run's seed.
        batch: Samples per step, B.
        count: Samples in the data set, N; None for data that are read in order.
        offset: Position in the data of step 0. A run that had another B before is where that one had come to.
    """

    seed: int
    batch: int
    count: int | None
    offset: int = 0

    def indices(self, step: int) -> Tensor:
        """Data indices of a step, (B,): consecutive parts of one shuffled epoch after another, or of one order."""
        return _indices(self, step).clone()

    def uniform(self, step: int) -> Tensor:
        """Uniform draws for the times of a step, (B,) float64 on the CPU.

        They are spread evenly over [0, 1) from one random offset, which lowers the variance of the loss
        (Kingma et al. 2021, appendix I.1); each of them is uniform.
        """
        steps = _together(step, self.batch)
        return _uniform(self.seed, steps, self.batch)[step - steps.start].clone()

    def noise(
        self, step: int, shape: tuple[int, ...], rows: range | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Standard normal noise of rows of a step's batch, (number of rows, *shape) float32; of all rows by default.

        Each row has a part of its own of a counter-based stream, so it is drawn where it is used: on the device, and
        by the process, that trains on it.
        """
        rows = range(self.batch) if rows is None else rows
        size = math.prod(shape)
        steps = _together(step, size * len(rows))
        if len(steps) == 1:  # nothing is drawn for steps to come
            return _noise(self.seed, steps, rows, size, torch.device(device)).reshape(len(rows), *shape)
        noise = _kept_noise(self.seed, steps, rows, size, torch.device(device))[step - steps.start]
        return noise.reshape(len(rows), *shape).clone()

    def condition_draws(self, step: int, draws: int = 1) -> Tensor:
        """Uniform draws for all that is random about the conditions of a step, (B, draws) float64."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, _CONDITION, step))
        return torch.rand(self.batch, draws, generator=generator, dtype=torch.float64)


class Batch(OpenDataset):
    """The data of one step: read in parts by training, unless a coupling has read the whole batch before.

    It is the data set as a coupling sees it. What `batch` returns for the indices of the step are the samples that are
    trained on, with their augmentations; an iterable is read once. Every process then reads the whole batch, from one
    state of PyTorch's generator, which is the caller's to set.

    Args:
        source: The data as they were handed over: a coupling reads them on the host.
        resident: The same data, on the device where they are trained on.
        indices: Those of the step, (B,).
    """

    def __init__(self, source: OpenDataset, resident: OpenDataset, indices: Tensor) -> None:
        for name in ("name", "shape", "checksum", "stand_in", "labels", "class_names"):  # checked in the source
            vars(self)[name] = getattr(source, name)
        self.source, self.resident, self.indices = source, resident, indices
        self._read: tuple[Tensor, Tensor | None] | None = None

    def of(self, indices: Tensor) -> Batch:
        """The data of another step."""
        twin = object.__new__(Batch)
        vars(twin).update(vars(self), indices=indices, _read=None)
        return twin

    def __len__(self) -> int:
        return len(self.source)

    def positions(self) -> tuple[Tensor, int]:
        """See `OpenDataset.positions`."""
        return self.source.positions()

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """See `OpenDataset.batch`."""
        if not torch.equal(indices, self.indices):
            return self.source.batch(indices, device)
        if self._read is None:
            self._read = self.source.examples(indices)
        return self._read[0].to(device)

    def part(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The samples of some rows of the batch, on a device, and their labels; see `OpenDataset.examples`."""
        if self._read is None:
            return self.resident.examples(self.indices[rows], device)
        x, label = self._read
        return x[rows].to(device, non_blocking=True), None if label is None else label[rows]
