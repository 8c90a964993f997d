"""What is random in training, as a function of (seed, step) alone: so a resumed run is the same run.

It does not depend on how many processes share a batch, on their devices, or on what was drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["BatchPlan", "stream_seed"]

_ORDER, _NOISE, _CONDITION = 0, 1, 3  # separate streams of one seed; the loop's dropout is 2


def stream_seed(seed: int, *key: int) -> int:
    """A 63-bit seed that is a well-mixed function of integers >= 0, those of the key below 2^32.

    SeedSequence joins 32-bit words, so the high ones of `seed` come last: elsewhere they would be taken for the key.
    """
    high = [seed >> 32] if seed >> 32 else []
    words = np.random.SeedSequence([seed % 2**32, *key, *high]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(seed, _ORDER, epoch))
    return torch.randperm(count, generator=generator)


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
        positions = self.offset + torch.arange(step * self.batch, (step + 1) * self.batch)
        if self.count is None:
            return positions
        epochs = positions // self.count
        shuffled = {epoch: _order(self.seed, epoch, self.count) for epoch in epochs.unique().tolist()}
        return torch.cat([order[positions[epochs == epoch] % self.count] for epoch, order in shuffled.items()])

    def draws(self, step: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Uniform draws for the times, (B,) float64, and standard normal noise, (B, *shape) float32, of a step.

        The uniform draws are spread evenly over [0, 1) from one random offset, which lowers the variance of the loss
        (Kingma et al. 2021, appendix I.1); each of them is uniform.
        """
        generator = torch.Generator().manual_seed(stream_seed(self.seed, _NOISE, step))
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        uniform = (offset + torch.arange(self.batch, dtype=torch.float64) / self.batch) % 1
        return uniform, torch.randn(self.batch, *shape, generator=generator)

    def condition_draws(self, step: int, draws: int = 1) -> Tensor:
        """Uniform draws for all that is random about the conditions of a step, (B, draws) float64."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, _CONDITION, step))
        return torch.rand(self.batch, draws, generator=generator, dtype=torch.float64)
