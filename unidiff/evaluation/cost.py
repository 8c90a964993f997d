"""What drawing samples costs: seconds, CPU seconds and, where the machine counts it, energy."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

__all__ = ["measured"]

_ENERGY = Path("/sys/class/powercap")  # Intel's and AMD's counters of the processor packages, often for root alone
T = TypeVar("T")


def measured(compute: Callable[[], T], count: int) -> tuple[T, dict[str, float]]:
    """The result of a computation of `count` samples, and its cost: seconds, cpu_seconds, joules_per_1000.

    Energy is that of the whole processor, whatever else runs; it is left out where it cannot be read.
    """
    energy, begun, cpu = _energy(), time.perf_counter(), time.process_time()
    result = compute()
    cost = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    used = {name: after - energy[name] for name, after in _energy().items() if name in energy}
    if used and min(used.values()) >= 0:  # a counter begins again after some hours
        cost["joules_per_1000"] = sum(used.values()) / 1e6 * 1000 / count
    return result, {name: round(value, 2) for name, value in cost.items()}


def _energy() -> dict[str, int]:
    """The counters of the packages in microjoules, by name."""
    found = {}
    with suppress(OSError, ValueError):
        for path in sorted(_ENERGY.glob("*-rapl:?/energy_uj")):
            found[path.parent.name] = int(path.read_text())
    return found
