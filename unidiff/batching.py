"""Many samples in batches: rows, seeds, conditions and progress of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from unidiff.errors import require_whole

__all__ = ["Batch", "Progress", "batches"]

Progress = Callable[[int, int], None]


class Batch(NamedTuple):
    """Some of the samples of a run.

    Attributes:
        rows: Which they are.
        seeds: Their seeds.
        cond: Their conditions.
        progress: Takes (done, total) of this batch; reports them as a part of all batches.
    """

    rows: slice
    seeds: Sequence[int]
    cond: dict[str, Tensor]
    progress: Progress


def batches(
    seeds: Sequence[int],
    batch: int | None = None,
    cond: Mapping[str, Tensor] | None = None,
    progress: Progress | bool | None = None,
) -> Iterator[Batch]:
    """Divide samples into batches.

    Args:
        seeds: One seed per sample.
        batch: Samples of a batch, at least 1; None for all of them together.
        cond: Conditions, each with a row per sample.
        progress: Called with (done, total) over all batches.
    """
    if batch is not None:
        require_whole("batch", batch, 1, 10_000_000)
    starts = range(0, len(seeds), batch or len(seeds))
    for index, start in enumerate(starts):
        rows = slice(start, min(start + (batch or len(seeds)), len(seeds)))

        def report(done: int, total: int, before: int = index) -> None:
            if callable(progress):
                progress(before * total + done, len(starts) * total)

        yield Batch(rows, seeds[rows], {name: value[rows] for name, value in (cond or {}).items()}, report)
