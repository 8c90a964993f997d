"""Jobs that are killed, that share a directory, or whose disk or memory fails, and how they go on."""

from __future__ import annotations

import os
import random
import shutil
import time
from functools import partial
from pathlib import Path

from stress import faults
from stress.command import Verdict, begin, changes, run, snapshot
from stress.jobs import JOBS, TRAINING, go_on, unbroken

_BY_NAME = {job.name: job for job in JOBS}


def kill(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """Kill a job: at every file operation in turn if the index is even, at a random moment if it is odd."""
    expected = unbroken(templates)
    operations = [(job, n + 1) for job in JOBS for n in range(expected[job.name]["count"])]
    random.Random(0).shuffle(operations)  # the first few are of every job
    job, n = operations[index // 2 % len(operations)]
    moment = None
    if index % 2:
        job = draw.choice(JOBS)
        moment = draw.uniform(0, expected[job.name]["seconds"])
    job.fill(Path.cwd(), templates)
    prepare = faults.kill_at(n) if moment is None else lambda: None
    verdict.judge(run(*job.words, prepare=prepare, kill_after=moment, patience=TRAINING), (0,), killed=True)
    for words in job.after[: draw.randrange(3)]:  # and what goes on with it is killed as well
        again = faults.kill_at(draw.randint(1, expected[job.name]["count"]))
        verdict.judge(run(*words, prepare=again, patience=TRAINING), (0, 2), killed=True)
    go_on(verdict, job, templates)


def storage(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """A job on a disk that is full, read-only, gone or failing, or with few handles or little memory."""
    job = draw.choice(JOBS)
    count = unbroken(templates)[job.name]["count"]
    n, number = draw.randint(1, count), draw.choice(faults.ERRORS)
    kinds = {
        "error": faults.deny_at(n, number, 1),
        "errors": faults.deny_at(n, number, 1 << 30),
        "gone": faults.remove_at(n, Path.cwd() / job.writes),
        **faults.limits(draw),
    }
    kind = [*kinds, "full", "read-only"][index % (len(kinds) + 2)]
    disk = None
    if kind in kinds:
        job.fill(Path.cwd(), templates)
    else:
        Path("disk").mkdir()
        try:
            disk = faults.Disk(Path("disk").absolute(), 1 << 30)
        except OSError:  # mounting is not permitted: as a disk behaves that is full, or is not
            kind = "errors"
        os.chdir("disk")
        job.fill(Path.cwd(), templates)
        used = shutil.disk_usage(".").used
        if disk is not None:
            disk.change(used + int(10 ** draw.uniform(3, 8)) if kind == "full" else 1 << 30, kind == "read-only")
    result = run(*job.words, prepare=kinds.get(kind, lambda: None), patience=TRAINING)
    verdict.judge(result)
    if disk is not None:
        disk.change(1 << 30)
    if result.code == 0 and kind != "gone" and (wrong := job.differing(Path.cwd(), templates)):
        verdict.add("lost", f"{job.name}: exit code 0, but {wrong} are not those of an unbroken one ({kind})")
    before = len(verdict.notes)
    go_on(verdict, job, templates)
    if verdict.notes[before:] or result.code not in (0, 1, 2):
        verdict.notes.append(f"    after: {kind}, operation {n} of {count}, {os.strerror(number)}")


def together(verdict: Verdict, draw: random.Random, index: int, templates: Path) -> None:
    """Two commands at once on one directory: the first is not disturbed, the second waits, reads or is refused."""
    job = _BY_NAME[draw.choice(["run", "run of images", "overwrite", "codec", "classifier", "export", "report"])]
    job.fill(Path.cwd(), templates)
    expected = unbroken(templates)[job.name]
    seconds = expected["seconds"]
    first = begin(partial(run, *job.words, patience=TRAINING))[1]
    time.sleep(draw.choice([0, draw.uniform(0, seconds)]))
    others: list[tuple[str, ...]] = [job.words, *job.after]
    if job.words[0] == "run":
        others += [("sample", "out", "--array", "x.npy"), ("likelihood", "out"), ("export", "out", "exported")]
        others += [("compare", "out", "--solvers", "ddim", "--nfe", "2", "--count", "20", "--out", "compared")]
    second = run(*draw.choice(others), patience=TRAINING)
    one = first()
    verdict.judge(second)
    verdict.judge(one, (0, 1, 2))
    ended = " | ".join(f"{' '.join(own.words)} -> {own.code}: {own.err[-200:]!r}" for own in (one, second))
    if one.code not in (0, 2) or (one.code and second.code):  # one that came too late is refused with 2
        verdict.add("lost", f"{job.name}: {ended}")
    go_on(verdict, job, templates)


def untouched(verdict: Verdict, before: dict[str, str], folders: tuple[Path, ...], note: str) -> None:
    """Count what has changed in some folders as left behind."""
    if names := changes(before, snapshot(*folders)):
        verdict.add("left behind", f"{note}: {names[:5]}")
