"""The numbers that a script finds for a figure, and whether it shows what it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Findings"]


@dataclass(frozen=True)
class Findings:
    """The numbers beside a figure.

    Attributes:
        summary: The number that the figure must show, in a few words: "9 of 9 are digits".
        holds: Whether it shows what it must.
        numbers: All numbers by name; plain values for JSON.
        bound: What `holds` compares with, and why: the derivation in a sentence.
    """

    summary: str
    holds: bool
    numbers: Mapping[str, Any]
    bound: str
