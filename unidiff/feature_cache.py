"""Feature caching: most layers of a network are evaluated at some steps, and their features used at the next ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.acceleration import Acceleration
from unidiff.errors import ParameterError, require_whole
from unidiff.process.base import Process
from unidiff.process.level import Level

__all__ = ["FeatureCache"]

_CALLS = 8  # at one level, each with features of its own: the memory of a solver that stays at a level is bounded


@dataclass(frozen=True)
class FeatureCache(Acceleration):
    """Whole evaluations at each `interval`-th time of the grid; between them only the layers near input and output.

    The features of the other layers change slowly along a trajectory. Between whole evaluations they are those of the
    last one, or the polynomial through the last ones: for a UNet what enters the expanding path from the coarser levels
    (DeepCache, Ma et al. 2024, section 3), for a DiT what its middle blocks add to the tokens. The polynomial is that
    of Liu et al. 2025 (TaylorSeer, from memory). The samples are approximations; docs/benchmarks.md has their errors.

    Features are kept for one batch of one sampling run, and for each network and each of its evaluations at a time: the
    first evaluation of a step takes those of the first, the second those of the second, so that branches of guidance
    share none. Evaluations at times that are not on the grid, as inside a step of RK45 or at a raised noise level, and
    beyond the eighth at one time are whole.

    Args:
        interval: Times from one whole evaluation to the next; 1 is the plain model, bit for bit.
        depth: How many layers near input and output are evaluated at each time: of a UNet stages of the expanding
            path, of a DiT blocks at each end. More are slower and more exact.
        order: Degree of the polynomial, in the number of the time on the grid, from 0 to 4. Each adds features to the
            memory.
    """

    interval: int = 2
    depth: int = 1
    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("interval", self.interval)
        require_whole("depth", self.depth)
        require_whole("order", self.order, 0, 4)

    def check_network(self, network: nn.Module) -> None:
        """See `Acceleration.check_network`."""
        name, deepest = type(network).__name__, getattr(network, "deepest", 0)
        if not deepest:
            problem = f"FeatureCache needs a UNet, or a DiT of three blocks or more, got {name}"
            raise ParameterError("acceleration", f"{problem}. Leave it out.")
        if self.depth > deepest:
            raise ParameterError("depth", f"must be at most {deepest} for this {name}, got {self.depth}")

    def check_process(self, process: Process) -> None:
        """See `Acceleration.check_process`."""
        if process.basis.shape:
            problem = f"FeatureCache needs a process whose modes have one SNR, got {process!r}"
            raise ParameterError("acceleration", f"{problem}. Leave it out.")

    def execute(self, network: nn.Module) -> nn.Module:
        """See `Acceleration.execute`."""
        return _Cached(network, self.interval, self.depth, self.order)


class _Cached(nn.Module):
    """A network without state: what it keeps lies with the levels of a run, and is gone with them."""

    takes_level = True

    def __init__(self, network: nn.Module, interval: int, depth: int, order: int) -> None:
        super().__init__()
        self.network: Any = network
        self.interval, self.depth, self.order = interval, depth, order

    def forward(self, x: Tensor, c: Tensor, *, _level: Level | None = None, **cond: Tensor) -> Tensor:
        grid, number = (_level and _level.place) or (None, 0)
        if grid is None or len(grid.levels) == 1 or self.interval == 1:
            return self.network(x, c, **cond)
        if torch.is_grad_enabled() and any(v.requires_grad for v in (x, *cond.values(), *self.parameters())):
            raise ParameterError("acceleration", "cached features have no gradients. Use Compiled, or none.")
        kept: _Kept = grid.made.setdefault(id(self), _Kept(self))
        call = kept.call_at(number)
        if call >= _CALLS:
            return self.network(x, c, **cond)
        form = (call, x.shape, x.dtype, x.device, *((name, value.shape) for name, value in cond.items()))
        known = {at: features for at, features in kept.features.get(form, {}).items() if at < number}
        if number % self.interval and known and number - max(known) < self.interval:
            weighted = zip(_lagrange([*known], number), known.values())
            features = functools.reduce(torch.add, (w * past if w != 1 else past for w, past in weighted))
            return self.network.evaluate(x, c, self.depth, features, **cond)[0]
        output, features = self.network.evaluate(x, c, self.depth, **cond)
        latest = [*known][-self.order :] if self.order else []
        kept.features[form] = {**{at: known[at] for at in latest}, number: features}
        return output


class _Kept:
    """What is kept of a network along one run: by the form of an evaluation, features by the number of their level."""

    def __init__(self, network: _Cached) -> None:
        self.network = network  # whose id is the key: it must live as long
        self.features: dict[Hashable, dict[int, Tensor]] = {}
        self._at = (-1, 0)

    def call_at(self, number: int) -> int:
        """How many evaluations at this level came before, since another level."""
        self._at = (number, self._at[1] + 1 if self._at[0] == number else 0)
        return self._at[1]


def _lagrange(known: Sequence[int], at: int) -> list[float]:
    """The weights with which values at these places give, at another, the polynomial through them."""
    return [math.prod((at - other) / (own - other) for other in known if other != own) for own in known]
