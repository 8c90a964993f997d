"""Everything at once for a while, and the memory of processes that live through it."""

from __future__ import annotations

import itertools
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stress.cases import Part, Table, campaign

FLAT = 60.0  # MB per hour: 1 MB a minute, far below what a process that keeps a network or a figure would add
_WARM = 0.25  # of the time, in which caches fill
_MB = 1 << 20


def slope(seconds: Sequence[float], megabytes: Sequence[float]) -> tuple[float, float]:
    """The slope of a line through points by least squares, in MB per hour, and its standard error."""
    n, mean, level = len(seconds), sum(seconds) / len(seconds), sum(megabytes) / len(megabytes)
    spread = sum((x - mean) ** 2 for x in seconds)
    rise = sum((x - mean) * (y - level) for x, y in zip(seconds, megabytes)) / spread
    rest = sum((y - level - rise * (x - mean)) ** 2 for x, y in zip(seconds, megabytes))
    return 3600 * rise, 3600 * math.sqrt(rest / (n - 2) / spread)


def _train(templates: Path) -> None:
    """One long training, with checkpoints, previews and metrics all the time."""
    import unidiff

    training = {"steps": 10**7, "checkpoint_every": 50, "preview_every": 500, "log_every": 5}
    changes = [f"training.{name}={value}" for name, value in training.items()]
    unidiff.load_recipe(templates / "images.yaml", changes).run(Path("out"), _Silent())


def _commands(templates: Path) -> None:
    """Short commands one after another in the same process, as in a notebook: what each keeps would add up."""
    from unidiff.cli import main

    for count in itertools.count():
        for words in (
            ["sample", str(templates / "images"), "--array", "x.npy", "--out", "x.png"],
            ["export", str(templates / "latent"), "exported", "--overwrite"],
            ["check", "ddpm_digits", "--set", f"training.steps={count % 9 - 1}"],
            ["run", str(templates / "ring.yaml"), "--out", "out", "--overwrite"],
        ):
            sys.argv = ["unidiff", *words]
            try:
                main()
            except SystemExit as end:
                if end.code not in (0, None, 2):
                    raise


class _Silent:
    def notice(self, text: str) -> None: ...

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None: ...


LOADS: dict[str, Callable[[Path], None]] = {"a training": _train, "commands in one process": _commands}


def soak(seconds: float, parts: Sequence[Part], seed: int, templates: Path, workers: int, table: Table) -> bool:
    """Try cases of all parts while long processes go on, and print how fast the memory of these grows.

    Returns:
        Whether it is flat: no slope is above `FLAT` by more than two of its standard errors, and no process ended.
    """
    begun, longest = time.monotonic(), {name: _start(load, templates) for name, load in LOADS.items()}
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in longest}

    def cases() -> Iterator[tuple[Part, int]]:
        draw, index = random.Random(seed), itertools.count(1_000_000)
        while time.monotonic() - begun < seconds:
            yield draw.choice(parts), next(index)

    def look() -> None:
        for name, pid in longest.items():
            if memory := _megabytes(pid):
                points[name].append((time.monotonic() - begun, memory))

    alive = {}
    try:
        for part, verdict in campaign(cases(), seed, templates, workers, look):
            table.add(part.name, verdict)
    finally:
        for name, pid in longest.items():
            alive[name] = os.waitpid(pid, os.WNOHANG)[0] == 0
            if alive[name]:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    flat = [_report(name, points[name], alive[name]) for name in longest]
    return all(flat)


def _report(name: str, points: Sequence[tuple[float, float]], alive: bool) -> bool:
    late = [point for point in points if point[0] > _WARM * points[-1][0]] if points else []
    if not alive:
        print(f"soak: {name}: ended by itself; its last words are in a file `said` under --templates")
        return False
    if len(late) < 10:
        print(f"soak: {name}: only {len(late)} measurements")
        return True
    rise, error = slope(*zip(*late))
    print(f"soak: {name}: {late[-1][1]:.0f} MB, slope {rise:+.1f} ± {error:.1f} MB per hour")
    return rise - 2 * error <= FLAT


def _start(load: Callable[[Path], None], templates: Path) -> int:
    """A long process in a folder of its own, silent."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(tempfile.mkdtemp(dir=templates))
        said = os.open("said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        try:
            load(templates)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(1)


def _megabytes(pid: int) -> float:
    """The memory of a process that is its own; 0 once it has ended."""
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(resident) - int(shared)) * resource.getpagesize() / _MB
