"""How long a command of `unidiff` takes to answer, beside the start of the interpreter itself.

python benchmarks/command_line.py --repeats 7
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from rows import Row, compare, machine, show

GOALS = {"--help": 0.15, "list": 0.3, "describe DDIM": 0.5}


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], capture_output=True, check=True)


def children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(repeats: int) -> list[Row]:
    """The rows of this benchmark."""
    return [
        compare(
            f"unidiff {words}",
            lambda: run("-c", "from unidiff.cli import main; main()", *words.split()),  # noqa: B023 (called at once)
            lambda: run("-c", "pass"),
            goal,
            repeats,
            absolute=True,
            clock=children,
        )
        for words, goal in GOALS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="how often each command is run (default 7)")
    show(measure(parser.parse_args().repeats))
    print(machine())


if __name__ == "__main__":
    main()
