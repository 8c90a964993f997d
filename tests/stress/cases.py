"""Cases by name, each in a process and a folder of its own, several at once; and the table of what they found."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import select
import subprocess
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stress.command import FAULTS, Verdict, begin


@dataclass(frozen=True)
class Part:
    """A part of the campaign.

    Attributes:
        name: Its name, with which the names of its cases begin.
        full: How many cases `make stress` tries.
        quick: How many cases `--quick` tries.
        run: Tries case number `index` in the working directory, an empty folder, and adds what it finds.
    """

    name: str
    full: int
    quick: int
    run: Callable[[Verdict, random.Random, int, Path], None]


def tried(part: Part, seed: int, index: int, templates: Path) -> Verdict:
    """Try one case in this process, in a folder of its own that is removed."""
    verdict = Verdict(f"{part.name}/{seed}/{index}")
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="unidiff-stress-"))
    os.chdir(folder)
    try:
        part.run(verdict, random.Random(verdict.name), index, templates)
    except BaseException:  # a mistake of the campaign: it must not pass for a case without faults
        verdict.add("wrong exit codes", f"THE CAMPAIGN ITSELF: {traceback.format_exc(limit=-3)}")
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-rf", folder], stderr=subprocess.DEVNULL)  # folders may be too deep for Python
    return verdict


def campaign(
    cases: Iterable[tuple[Part, int]],
    seed: int,
    templates: Path,
    workers: int,
    every_second: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Part, Verdict]]:
    """Try cases, `workers` at once, and yield what each has found; `every_second` is called at least so often."""
    waiting, running = iter(cases), {}
    while True:
        for part, index in itertools.islice(waiting, workers - len(running)):
            pipe, result = begin(functools.partial(tried, part, seed, index, templates))
            running[pipe] = part, index, result
        if not running:
            return
        every_second()
        for pipe in select.select([*running], [], [], 1.0)[0]:
            part, index, result = running.pop(pipe)
            verdict = result()
            if verdict is None:
                verdict = Verdict(f"{part.name}/{seed}/{index}")
                verdict.add("wrong exit codes", "THE CAMPAIGN ITSELF ended")
            yield part, verdict


class Table:
    """How many cases were tried and what they found, by part."""

    def __init__(self, log: Path | None = None) -> None:
        self.rows: dict[str, Counter[str]] = {}
        self.codes: Counter[int] = Counter()
        self._log = log

    def add(self, part: str, verdict: Verdict) -> None:
        row = self.rows.setdefault(part, Counter())
        row["tried"] += 1
        row.update(verdict.found)
        self.codes.update(result.code for result in verdict.results)
        if verdict.notes:
            print(f"make stress REPEAT={verdict.name}", *verdict.notes, sep="\n    ", flush=True)
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(json.dumps({"case": verdict.name, "notes": verdict.notes}) + "\n")

    @property
    def clean(self) -> bool:
        """Whether all columns but the first are zero."""
        return not any(row[fault] for row in self.rows.values() for fault in FAULTS)

    def text(self) -> str:
        total = sum(self.rows.values(), Counter())
        lines = [["part", "tried", *FAULTS]]
        for name, row in (*self.rows.items(), ("all", total)):
            lines.append([name, *(str(row[column]) for column in ("tried", *FAULTS))])
        widths = [max(map(len, column)) for column in zip(*lines)]
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return f"exit codes of {sum(self.codes.values())} commands: {codes}\n" + "\n".join(
            "  ".join(word.rjust(n) if i else word.ljust(n) for i, (word, n) in enumerate(zip(line, widths)))
            for line in lines
        )
