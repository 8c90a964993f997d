"""Samples themselves as a condition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.condition.base import Condition
from unidiff.condition.sequence import Embedding
from unidiff.conditioning.base import Conditioning, augmented, check_augmentation, check_dropout
from unidiff.data.base import Dataset
from unidiff.errors import require

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity(Conditioning):
    """The data themselves as a condition: in a `Cascade`, the samples of the stage before, as a prior's of a decoder.

    In training it makes sense with noise: a network that refines noisy data. In a recipe it builds the network for an
    `Embedding` of vectors; for other data, name a condition for them in `backbone.conditions`.

    Args:
        name: Name of the condition, such as "embedding".
        noise: Standard deviation of noise that is added to the condition, at least 0; see `augmented`.
        dropout: Probability that a sample's condition is dropped (set to zeros) in training, from 0 to 1.
    """

    name: str
    noise: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.name.isidentifier(), "name", self.name, "a name such as y or embedding")
        check_augmentation(self.noise)
        check_dropout(self.dropout)

    @property
    def names(self) -> tuple[str, ...]:
        """Its own."""
        return (self.name,)

    def built_for(self, data: Dataset) -> tuple[Condition, ...]:
        """An embedding, of vectors; see `Conditioning.built_for`."""
        return (Embedding(tuple(data.shape), name=self.name),) if len(data.shape) == 1 else ()

    @property
    def draws(self) -> int:
        """One for dropout, and one for the noise if there is any."""
        return 1 + (self.noise > 0)

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The data with their noise, zeros where the first draw is below `dropout`; see `Conditioning.conditions`."""
        dropped = (uniform[:, 0] < self.dropout).to(x0.device).reshape(-1, *[1] * (x0.ndim - 1))
        return {self.name: torch.where(dropped, 0.0, augmented(x0, self.noise, uniform[:, -1]))}

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """The samples, of any shape, with their noise; see `Conditioning.from_samples`."""
        return self.conditions(x, None, uniform)
