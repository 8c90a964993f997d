"""All rows of ours beside a reference in one table, and the curves of cost: `make bench` runs this.

What the library costs per step, a training step, the command line, the error of the default solver, two processes, and
how cost grows. The text is printed and replaces the last one in docs/benchmarks.md.

    python benchmarks/bench.py
    python benchmarks/bench.py --only training_step command_line --docs /tmp/page.md
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import cost
import default_solver
import feature_cache
import inference
import overhead
import torch
import training_step
import two_processes
from rows import Row, machine, replaced, table

from unidiff.files import whole_file

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PARTS: dict[str, Callable[[], list[Row]]] = {
    "overhead": lambda: overhead.measure(7),
    "training_step": lambda: training_step.measure(5),
    "command_line": lambda: command_line.measure(5),
    "two_processes": lambda: two_processes.measure(3),
    "feature_cache": lambda: feature_cache.measure(3),
    "inference": lambda: inference.measure(1),
    # At 100 evaluations it takes as long as at all others together: `python benchmarks/default_solver.py`.
    "default_solver": lambda: default_solver.measure(counts=(5, 10, 20, 50)),
}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "cost"], default=[*PARTS, "cost"], help="parts to run")
    parser.add_argument("--docs", type=Path, default=PAGE, help="the page that the table is written into")
    options = parser.parse_args()
    page = options.docs.read_text() if options.docs.exists() else ""
    begun, found = time.perf_counter(), dict[str, Any]()
    torch.set_num_threads(1)
    spent = []
    for name, part in {**PARTS, "cost": lambda: cost.table(cost.curves())}.items():
        if name in options.only:
            start = time.perf_counter()
            found[name] = part()
            spent.append(f"{name} {time.perf_counter() - start:.0f}")
            print(f"{spent[-1]} s", file=sys.stderr, flush=True)
    curves = found.pop("cost", "")
    rows = [row for part in found.values() for row in part]
    text = [table(rows)] if rows else []
    text += [curves] if curves else []
    heading = f"{machine()}, {datetime.date.today()}, {time.perf_counter() - begun:.0f} s in all."
    heading += f" Seconds of each part: {', '.join(spent)}."
    section = f"{heading}\n\n```\n" + "\n\n".join(text) + "\n```"
    print(section)
    with whole_file(options.docs) as partial:
        partial.write_text(replaced(page, section, "make bench"))


if __name__ == "__main__":
    main()
