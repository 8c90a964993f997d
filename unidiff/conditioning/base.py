"""The interface of every conditioning: conditions made from clean data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.condition.base import Condition, Named
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import ParameterError, require
from unidiff.noise import Seeded

if TYPE_CHECKING:
    from unidiff.conditioning.palette import ImageConditioning

__all__ = ["Conditioning", "Examples", "augmented", "check_augmentation", "check_dropout", "require_samples"]


class Examples(NamedTuple):
    """Conditions for the example samples of a run.

    Attributes:
        cond: The conditions by name, each with a row per sample.
        truth: The data that they were computed from, (B, *shape); None if there are none, as for labels.
    """

    cond: dict[str, Any]
    truth: Tensor | None = None

    def in_turn(self, count: int | None = None) -> Examples:
        """Those of `count` samples, which take the rows of each in turn; by default of as many as the longest has."""
        turn = torch.arange(max(map(len, self.cond.values()), default=1) if count is None else count)
        cond = {name: value[turn % len(value)] for name, value in self.cond.items()}
        return Examples(cond, None if self.truth is None else self.truth[turn % len(self.truth)])


@dataclass(frozen=True)
class Conditioning(PlainArguments, ABC):
    """Conditions computed from the data, for training a conditional network."""

    @property
    @abstractmethod
    def dropout(self) -> float:
        """Probability that a sample's conditions are dropped, from 0 to 1; with 0 the model cannot be guided."""

    @property
    def draws(self) -> int:
        """Uniform numbers per sample in training, at least 1: all randomness of its conditions."""
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its conditions, as far as they are known beforehand; none by default."""
        return ()

    @property
    def dropout_draws(self) -> tuple[int, ...]:
        """Which of the uniform numbers decide that something is dropped: the first, by default."""
        return (0,)

    @property
    def guides(self) -> bool:
        """Whether guidance leads away from its null, unless told otherwise."""
        return True

    @property
    def measured(self) -> ImageConditioning | None:
        """The part of it that measures the clean image; None, the default, without one."""
        return None

    def built_for(self, data: Dataset) -> tuple[Condition, ...]:
        """The conditions that a network in a recipe must be built for; none by default."""
        return ()

    def made(self, data: Dataset) -> tuple[str, ...] | None:
        """Names of all conditions that it makes of the data; None, by default, if neither `names` nor `built_for` says.

        A recipe is checked against them when it is read, and against the conditions themselves before it is run.
        """
        return (*self.names, *(own.name for own in self.built_for(data) if own.name not in self.names)) or None

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same conditions with all of them dropped: by default 0, or -1 for integers."""
        return {name: Named(name).null(len(value), value) for name, value in cond.items()}

    def network(self, data: Dataset, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments that the conditions set in the network of a recipe; by default those of `built_for`.

        Args:
            data: The data.
            arguments: The network's arguments in the recipe.

        Raises:
            ParameterError: If the network cannot be conditioned, or the data have no such conditions.
        """
        if not (needed := self.built_for(data)):
            return {}
        if "conditions" not in arguments:
            raise ParameterError("backbone", "this network has no parameter `conditions`, so it cannot be conditioned.")
        names = {condition.name for condition in needed}
        return {"conditions": (*(own for own in arguments["conditions"] if own.name not in names), *needed)}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError if opened data have no such conditions, before anything is written."""
        return

    @abstractmethod
    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The conditions of a batch by name, tensors with B rows: a function of its arguments, row by row.

        Args:
            x0: The clean data, (B, *shape), on any device.
            label: Their classes, (B,), or captions, (B, L), on the CPU; None where the data have none.
            uniform: Draws of the uniform distribution on [0, 1), (B, draws) float64 on the CPU. The first of each row
                decides whether its conditions are dropped.
        """

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """The conditions that samples of another model determine, in a stage of a `Cascade`; by default as from data.

        Args:
            x: Samples of the stage before, (B, ...).
            shape: Shape of this model's own samples, without the batch axis.
            uniform: As in `conditions`, (B, draws); the first of each row is 1, so that no condition is dropped.

        Raises:
            ParameterError: If the shape of the samples does not fit.
        """
        require_samples(self, x, shape)
        return self.conditions(x, None, uniform)

    def examples(self, data: Dataset, count: int, classes: int | None) -> Examples:
        """The conditions of `count` samples of the test split, always the same ones, and these samples.

        Raises:
            DataError: If the data have no test split.
        """
        source, generator = data.open("test"), torch.Generator().manual_seed(0)
        order = torch.randperm(len(source), generator=generator)  # a folder is sorted, and its mirror images follow it
        chosen = order[torch.arange(count) % len(order)]
        return self.own(source, chosen, generator)

    def own(self, source: OpenDataset, rows: Tensor, generator: torch.Generator) -> Examples:
        """The conditions of these samples of opened data, (B,), none dropped, and the samples."""
        x0, label = source.examples(rows)
        uniform = torch.rand(len(rows), self.draws, generator=generator, dtype=torch.float64)
        uniform[:, self.dropout_draws] = 1.0  # no condition is dropped
        return Examples(self.conditions(x0, label, uniform), x0)

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The samples, (B, *shape), with pixels that the condition determines replaced; unchanged by default."""
        return x


def require_samples(conditioning: Conditioning, x: Tensor, *shapes: tuple[int, ...]) -> None:
    """Raise a ParameterError unless samples (B, ...) have one of these shapes after the batch axis."""
    if tuple(x.shape[1:]) not in shapes:
        allowed = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ParameterError("conditioning", f"{conditioning!r} needs samples of {allowed}, got {tuple(x.shape[1:])}")


def check_dropout(probability: float, parameter: str = "dropout") -> None:
    """Raise a ParameterError unless this is a probability of dropping conditions."""
    require(0 <= probability <= 1, parameter, probability, "a number from 0 to 1")


def check_augmentation(noise: float) -> None:
    """Raise a ParameterError unless this is a level of `augmented`."""
    require(not isinstance(noise, bool) and 0 <= noise < math.inf, "noise", noise, "a number >= 0")


def augmented(y: Tensor, noise: float, uniform: Tensor) -> Tensor:
    """Conditioning augmentation: y + noise * eps, eps standard normal (Ho et al. 2022, non-truncated; from memory).

    A network trained on noisy conditions and told them in sampling, too, leans less on details of them, which another
    model may have got wrong. There it is trained at many levels and told the level; here at one.

    Args:
        y: Conditions, (B, ...).
        noise: Standard deviation of the noise, at least 0.
        uniform: One uniform draw for each sample, (B,) float64, which determines its noise.
    """
    return y if noise == 0 else y + noise * Seeded([int(value * 2**32) for value in uniform.tolist()])(y)
