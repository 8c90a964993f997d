"""Axes that are read at sight: ticks at the data, round numbers on logarithmic axes, one legend for all diagrams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unidiff.plot.appearance import shown

__all__ = ["label_axes", "legend_above", "log_ticks", "ticks_at", "upright"]

_FEW = 8  # numbers that an axis may have as its ticks
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # of the powers of ten


def label_axes(ax: Any, x: str, y: str, title: str) -> None:
    """Set the labels of a diagram; see `shown`."""
    ax.set(xlabel=shown(x), ylabel=shown(y), title=shown(title))


def ticks_at(ax: Any, values: Sequence[float]) -> None:
    """Put the ticks of the horizontal axis at the data, where they are few."""
    if ax.get_xscale() != "log":
        if 1 < len(places := sorted(set(values))) <= _FEW:
            reach = 0.06 * (places[-1] - places[0])
            ax.set_xticks([place for place in places if place == places[0] or _is_far(place, places, reach)])
        return
    ticks = apart([value for value in values if value > 0])
    if 1 < len(ticks) <= _FEW and len(set(values)) <= 3 * _FEW:
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
    else:
        upright(ax.xaxis)


def _is_far(place: float, places: Sequence[float], reach: float) -> bool:
    return place - places[places.index(place) - 1] > reach


def upright(axis: Any) -> None:
    """Round numbers at the ticks of a logarithmic axis, of which a short one has 1, 2, 5 and not 2 x 10^1."""
    if axis.get_scale() == "log":
        low, high = sorted(axis.get_view_interval())
        ticks = log_ticks(low, high)
        plain = ticks[0] >= 1e-3 and ticks[-1] <= 1e4
        axis.set_ticks(ticks, [f"{tick:g}" if plain else _power(tick) for tick in ticks])
        axis.set_ticks([], minor=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between two, 0 < low < high; their ends if there are no round ones."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / 7)]
    return ticks or [low, high]


def _power(tick: float) -> str:
    exponent = math.floor(math.log10(tick) + 1e-9)
    factor = tick / 10.0**exponent
    return f"$10^{{{exponent}}}$" if abs(factor - 1) < 1e-6 else f"${factor:g}\\times10^{{{exponent}}}$"


def legend_above(figure: Any, entries: Mapping[str, Any], width: int) -> None:
    """One legend above all diagrams, in as many columns as there is room for; labels are ready for matplotlib."""
    letters = 6 + max(map(len, entries))
    columns = max(1, min(len(entries), 4, width // letters))
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=columns)


def apart(values: Sequence[float]) -> list[float]:
    """Values to label on a logarithmic axis: of those within 8 % of the axis, half an inch, the most frequent."""
    counts = Counter(values)
    reach = 0.08 * math.log(max(counts, default=1.0) / min(counts, default=1.0))
    chosen: list[float] = []
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        if all(abs(math.log(value / other)) > reach for other in chosen):
            chosen.append(value)
    return sorted(chosen)
