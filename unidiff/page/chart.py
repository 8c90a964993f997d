"""Diagrams of curves as inline SVG, which follows the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unidiff.page.html import Markup, element

__all__ = ["Curve", "chart"]

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 12, 44
_COLOURS, _DASHES = 8, (None, "6 3", "2 3", "8 3 2 3")
_TICKS = 5
_WIDE = 4  # a logarithmic axis spans at least this factor
_HUGE = 1e300  # no number beyond is drawn: twice that would not be finite
_NARROW = 1e-12  # a range that is narrower, beside its numbers, has no ticks that a reader could tell apart


class Curve(NamedTuple):
    """A named curve; `marked` draws its points, `colour` is the number of its colour, that of its place if None."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marked: bool = False
    colour: int | None = None


class _Axis(NamedTuple):
    low: float
    high: float
    logarithmic: bool
    begin: float
    end: float

    @staticmethod
    def over(values: Sequence[float], logarithmic: bool, begin: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        logarithmic = logarithmic and high > _WIDE * low > 0
        if not logarithmic and high - low <= _NARROW * max(-low, high, 1 / _HUGE):
            margin = max(0.5, abs(low) / 2)
            low, high = low - margin, high + margin
        return _Axis(low, high, logarithmic, begin, end)

    def at(self, value: float) -> float:
        low, high, value = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers on the axis."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
                values = [step * 10.0**power for power in powers for step in steps]
                values = [value for value in values if self.low <= value <= self.high]
                if len(values) >= 3:
                    return values[:: max(1, len(values) // _TICKS)]
            return [self.low, self.high]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / _TICKS))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= _TICKS)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def chart(title: str, x: str, y: str, curves: Sequence[Curve], logarithmic: str = "") -> Markup | None:
    """A diagram with its legend; None if there is nothing to draw.

    Args:
        title: What it shows, for those who do not see it.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        curves: The curves; points that are not finite, or beyond 1e300, are left out.
        logarithmic: The axes that are logarithmic, such as "xy", where their numbers are > 0 and far apart.
    """
    drawn = [
        (curve, [(a, b) for a, b in zip(curve.x, curve.y) if abs(a) <= _HUGE and abs(b) <= _HUGE]) for curve in curves
    ]
    points = [point for _, finite in drawn for point in finite]
    if not points:
        return None
    across = _Axis.over([a for a, _ in points], "x" in logarithmic, _LEFT, _WIDTH - _RIGHT)
    up = _Axis.over([b for _, b in points], "y" in logarithmic, _HEIGHT - _BOTTOM, _TOP)
    parts: list[Markup] = [element("title", title)]
    for value in across.ticks():
        at = f"{across.at(value):.1f}"
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="grid"))
        parts.append(element("text", f"{value:g}", x=at, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
    for value in up.ticks():
        at = f"{up.at(value):.1f}"
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(element("text", f"{value:g}", x=_LEFT - 5, y=f"{float(at) + 4:.1f}", text_anchor="end"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(element("text", x, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 8, text_anchor="middle"))
    parts.append(element("text", y, x=0, y=0, text_anchor="middle", transform=f"translate(12 {middle}) rotate(-90)"))
    keys = []
    for index, (curve, finite) in enumerate(drawn):
        look = index if curve.colour is None else curve.colour
        colour, dash = f"var(--c{look % _COLOURS})", _DASHES[look // _COLOURS % len(_DASHES)]
        at_points = [(f"{across.at(a):.1f}", f"{up.at(b):.1f}") for a, b in finite]
        line = Markup("M" + "L".join(" ".join(point) for point in at_points))
        parts.append(
            element("path", d=line, class_="curve", stroke=colour, stroke_dasharray=dash) if finite else Markup("")
        )
        if curve.marked or len(finite) == 1:
            parts += [element("circle", cx=a, cy=b, r=3, fill=colour) for a, b in at_points]
        key = element(
            "span", class_="key", style=f"border-color: {colour}; border-top-style: {'dashed' if dash else 'solid'}"
        )
        keys.append(element("span", key, curve.name, "  "))
    image = element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title)
    legend = element("figcaption", *keys) if len(curves) > 1 else element("figcaption", title)
    return element("figure", image, legend)
