"""Several conditionings of one model together."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unidiff.conditioning.base import Conditioning, check_dropout
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import ParameterError, require

__all__ = ["Joint", "with_others"]


@dataclass(frozen=True)
class Joint(Conditioning):
    """Several conditionings together, such as a class and an image; in a recipe a list of them.

    Each drops its conditions by itself, at its own `dropout`; beside that all are dropped together. For p(u | y, z),
    p(u | y), p(u | z) and p(u) alike, each part needs a dropout; for p(u | y, z) and p(u) the joint one is enough.

    Args:
        parts: The conditionings, of different conditions; at least one.
        joint_dropout: Probability that all conditions of a sample are dropped together, from 0 to 1.
    """

    parts: tuple[Conditioning, ...]
    joint_dropout: float = 0.0

    def __post_init__(self) -> None:
        require(len(self.parts) > 0, "parts", self.parts, "one conditioning or more")
        for number, part in enumerate(self.parts):
            single = hasattr(part, "dropout_draws") and not hasattr(part, "parts")
            require(single, f"parts[{number}]", part, "one conditioning, such as Labels()")
        if same := sorted(name for name in self.names if self.names.count(name) > 1):
            raise ParameterError("parts", f"must make conditions of different names, got {same[0]!r} twice")
        check_dropout(self.joint_dropout, "joint_dropout")

    @property
    def names(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def dropout(self) -> float:
        """Probability that all conditions of a sample that guide are dropped, together or each by itself."""
        dropped = [part.dropout for part in self.parts if part.guides] or [0.0]
        return self.joint_dropout + (1 - self.joint_dropout) * math.prod(dropped)

    @property
    def draws(self) -> int:
        """One for the joint dropout, then those of each part."""
        return 1 + sum(part.draws for part in self.parts)

    @property
    def dropout_draws(self) -> tuple[int, ...]:
        """The first, and those of each part."""
        return (0, *(start + draw for part, start in self._starts() for draw in part.dropout_draws))

    @property
    def measured(self) -> ImageConditioning | None:
        """The first part that measures the clean image; None without one."""
        return next((part.measured for part in self.parts if part.measured is not None), None)

    def made(self, data: Dataset) -> tuple[str, ...] | None:
        """Those of all parts; None if one of them does not say."""
        every = [part.made(data) for part in self.parts]
        return None if None in every else tuple(name for own in every for name in own or ())

    def _starts(self) -> Iterator[tuple[Conditioning, int]]:
        """Each part and its first draw."""
        return zip(self.parts, itertools.accumulate((part.draws for part in self.parts), initial=1))

    def network(self, data: Dataset, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What all parts set; see `Conditioning.network`."""
        needed: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            try:
                needed |= part.network(data, {**arguments, **needed})
            except ParameterError as error:  # of the part: it is named by its place in the list
                where = re.sub("^conditioning", f"conditioning[{number}]", error.parameter)
                raise ParameterError(where, error.problem) from error
        return needed

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """See `Conditioning.check`."""
        for part in self.parts:
            part.check(source, classes)

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """Those of all parts, each dropped by itself or all together; see `Conditioning.conditions`.

        Raises:
            ParameterError: If two parts make a condition of the same name.
        """
        joint: dict[str, Tensor] = {}
        for part, start in self._starts():
            own = part.conditions(x0, label, uniform[:, start : start + part.draws])
            if same := sorted(joint.keys() & own.keys()):
                raise ParameterError("parts", f"must make conditions of different names, got {same[0]!r} twice")
            null, dropped = part.null(own), uniform[:, 0] < self.joint_dropout
            for name, value in own.items():
                rows = dropped.to(value.device).reshape(-1, *[1] * (value.ndim - 1))
                joint[name] = torch.where(rows, null[name], value)
        return joint

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """What the samples determine of all parts; see `Conditioning.from_samples`."""
        joint: dict[str, Tensor] = {}
        for part, start in self._starts():
            joint |= part.from_samples(x, shape, uniform[:, start : start + part.draws])
        return joint

    def compose(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """See `Conditioning.compose`."""
        for part in self.parts:
            x = part.compose(x, cond)
        return x


def with_others(first: Conditioning | None, others: Sequence[Conditioning]) -> Conditioning | None:
    """A conditioning and others, as one; None without any."""
    if (own := getattr(first, "parts", None)) is not None:
        joint: Any = first
        return replace(joint, parts=(*own, *others)) if others else first
    parts = (*(() if first is None else (first,)), *others)
    return Joint(parts) if len(parts) > 1 else parts[0] if parts else None
