"""What the benchmarks of speed share: ours beside a reference in one run, as rows "ours, reference, ratio, goal".

The two are timed in turn, so that other work on the machine touches both alike, in processor seconds of this process or
of its children. A row holds the medians of both and the median of the ratios of neighbours.
"""

from __future__ import annotations

import cProfile
import platform
import pstats
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HEAD = ("what", "ours", "reference", "ratio", "goal", "met")


class Row(NamedTuple):
    """One comparison, times in seconds."""

    what: str
    ours: float
    reference: float
    ratio: float
    goal: float  # of the ratio, or of our seconds
    absolute: bool = False  # whether the goal is one of our seconds
    number: bool = False  # whether both are plain numbers, such as errors, and no times
    least: bool = False  # whether the goal is the least that the ratio may be

    @property
    def met(self) -> bool:
        found = self.ours if self.absolute else self.ratio
        return found >= self.goal if self.least else found <= self.goal


def compare(
    what: str,
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    goal: float,
    repeats: int = 9,
    *,
    steps: int = 1,
    absolute: bool = False,
    clock: Callable[[], float] | None = time.process_time,
) -> Row:
    """Time two functions in turn, after one call of each that warms up; the seconds are those of one of `steps`.

    Without a clock the functions return their own seconds.
    """
    pairs = []
    for _ in range(repeats + 1):
        spent = []
        for run in (ours, reference):
            start = clock() if clock else 0.0
            own = run()
            spent.append((clock() - start if clock else own) / steps)
        pairs.append(spent)
    first, second = zip(*pairs[1:])
    ratio = statistics.median(a / b for a, b in pairs[1:])
    return Row(what, statistics.median(first), statistics.median(second), ratio, goal, absolute)


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    print(table(rows))


def table(rows: Sequence[Row]) -> str:
    """The rows as a table, each time in a unit that suits it."""
    lines = [HEAD]
    for row in rows:
        goal = f"{'>=' if row.least else '<='} {row.goal:g}{' s' if row.absolute else ''}"
        both = [f"{value:.2e}" if row.number else _readable(value) for value in (row.ours, row.reference)]
        lines.append((row.what, *both, f"{row.ratio:.2f}", goal, "yes" if row.met else "no"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    made = []
    for line in lines:
        cells = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        made.append("  ".join(cells).rstrip())
    return "\n".join(made)


def replaced(text: str, section: str, command: str) -> str:
    """A page with this section in place of the one between the command's marks, or at its end."""
    begin, end = (f"<!-- {command}: its table {word} here -->" for word in ("begins", "ends"))
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2] if found else ""
    return f"{before if found else before.rstrip() + chr(10) * 2}{begin}\n\n{section}\n\n{end}{after or chr(10)}"


def machine() -> str:
    """The processor and the versions that a table of times belongs to."""
    import torch

    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    name = names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"


def profile(run: Callable[[], Any]) -> None:
    """Print where a run that has been made once spends its time."""
    run()
    with cProfile.Profile() as found:
        run()
    pstats.Stats(found).sort_stats("tottime").print_stats(40)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _readable(seconds: float) -> str:
    size, unit = next(pair for pair in ((1.0, "s"), (1e-3, "ms"), (0.0, "us")) if seconds >= pair[0])
    return f"{seconds / (size or 1e-6):.3g} {unit}"
