"""Which cases of a product `make test` runs: pairs are covered, the products stay behind `make test-all`.

A case that is left out carries the marker `slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

import unidiff as ud

First = TypeVar("First")
Second = TypeVar("Second")


def kind(process: ud.Process) -> Hashable:
    """What a solver can notice of a process: whether its modes differ, and whether its times are a table."""
    return bool(process.basis.shape), process.native_times() is not None


def rotating(
    first: Iterable[First],
    second: Sequence[Second],
    count: int = 4,
    kind: Callable[[Second], Hashable] = lambda _: None,
    most: int | None = None,
) -> list[Any]:
    """Pairs for `parametrize`: each of the first with `count` of the second, and with at least one of each kind.

    The next of the first takes the next of each kind, so that all of the second have their turn. With `most`, each of
    the first meets only so many of the second in `make test-all`, again in turn.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, value in enumerate(second):
        groups.setdefault(kind(value), []).append(place)
    pairs = []
    for turn, one in enumerate(first):
        chosen = [places[turn % len(places)] for places in groups.values()]
        rest = [place for place in range(len(second)) if place not in chosen]
        shift = turn * count % max(1, len(rest))
        rest = rest[shift:] + rest[:shift]
        chosen += rest[: max(0, count - len(chosen))]
        kept = (chosen + [place for place in rest if place not in chosen])[:most]
        pairs += [
            # All pairs of a product take minutes: the others wait for `make test-all`.
            pytest.param(one, other, marks=() if place in chosen else pytest.mark.slow)
            for place, other in enumerate(second)
            if place in kept
        ]
    return pairs


def some(values: Iterable[Any], keep: Callable[[Any], bool]) -> list[Any]:
    """Values for `parametrize`, of which `make test` runs those for which `keep` holds."""
    return [
        value
        if keep(value)
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]
