"""A command of unidiff in a forked process: what it printed, how it ended, and what of that is a fault."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAULTS = ("lost", "tracebacks", "hangs over 5 s", "wrong exit codes", "left behind", "escape sequences")
PATIENCE = 5.0  # seconds of its own processor time, or in a row without any
MEMORY = 6 << 30  # bytes of address space that a command may add: the machine has others
_TRACES = re.compile(r"Traceback \(most recent call last\)|^frame #\d+:|C\+\+ CapturedTraceback", re.M)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        words: Its command line.
        code: Exit code; minus the signal that ended it.
        hung: It was stopped because it did not end.
    """

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    hung: bool = False


def run(
    *words: object,
    program: Callable[[], object] | None = None,
    prepare: Callable[[], object] = lambda: None,
    patience: float = PATIENCE,
    kill_after: float | None = None,
) -> Result:
    """Run a command in the working directory, in a process forked from this one.

    Args:
        *words: The words after `unidiff`.
        program: What to run in place of the command line.
        prepare: Called in the process first: what plants a fault.
        patience: Seconds of processor time, or in a row without any, after which it hangs.
        kill_after: Seconds after which it is killed, as `kill -9` does.
    """
    line = tuple(map(str, words))
    readers, writers = zip(os.pipe(), os.pipe())
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(line, program, prepare, *writers)
    for writer in writers:
        os.close(writer)
    code, hung, (out, err) = _watch(pid, readers, patience, kill_after)
    return Result(line, code, out, err, hung)


def _child(words: tuple[str, ...], program: Callable[[], object] | None, prepare: Callable[[], object], *pipes: int):
    code = 99
    try:
        os.setsid()
        for number, pipe in zip((1, 2), pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.argv = ["unidiff", *words]
        limit_memory(MEMORY)
        if program is None:
            from unidiff.cli import main as program
        prepare()
        code = _code(program)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code(program: Callable[[], object]) -> int:
    """The exit code, as Python would have it."""
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def limit_memory(more: int) -> None:
    """Let this process add so many bytes of address space, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _watch(pid: int, pipes: tuple[int, ...], patience: float, kill_after: float | None):
    """Wait for a process and its output; end it with its children when it hangs."""
    texts, begun = [bytearray() for _ in pipes], time.monotonic()
    for pipe in pipes:
        os.set_blocking(pipe, False)
    used, busy, hung, status = 0.0, begun, False, None
    while status is None:
        done, ended = os.waitpid(pid, os.WNOHANG)
        status = ended if done else None
        _drain(pipes, texts)
        if status is not None:
            break
        now, (spent, waiting) = time.monotonic(), _processor(pid)
        if spent > used or not waiting:
            used, busy = spent, now
        late = kill_after is not None and now - begun > kill_after
        hung = used > patience or now - busy > patience
        if late or hung:
            hung = not late
            # Before it has a group of its own, its group is the campaign's.
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        time.sleep(0.005)
    _drain(pipes, texts)
    for pipe in pipes:
        os.close(pipe)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    out, err = (text.decode("utf-8", "backslashreplace") for text in texts)
    return code, hung, (out, err)


def _drain(pipes: tuple[int, ...], texts: list[bytearray]) -> None:
    for pipe, text in zip(pipes, texts):
        try:
            while part := os.read(pipe, 1 << 16):
                text += part[: max(0, (1 << 22) - len(text))]
        except BlockingIOError:
            pass


def _processor(pid: int) -> tuple[float, bool]:
    """Seconds of processor time that a process has used, and whether it waits for anything but a core or a disk."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, False
    return sum(map(int, fields[11:15])) / _TICKS, fields[0] not in "RD"  # a slow disk is no hang


def begin(function: Callable[[], Any]) -> tuple[int, Callable[[], Any]]:
    """Start a function in a process of its own.

    Returns:
        A pipe that is readable when it is done, and what returns its value; None if the process ended without one.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            value = pickle.dumps(function())
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(value)
        finally:
            os._exit(0)
    os.close(writer)

    def result() -> Any:
        with os.fdopen(reader, "rb") as pipe:
            value = pipe.read()
        os.waitpid(pid, 0)
        return pickle.loads(value) if value else None

    return reader, result


@dataclass
class Verdict:
    """What was found in one case.

    Attributes:
        name: How the case is repeated alone: `make stress REPEAT=name`.
        found: How often each of `FAULTS` was met.
        notes: A line for each.
    results: How its commands ended.
        results: How its commands ended.
    """

    name: str
    found: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def add(self, fault: str, note: str) -> None:
        assert fault in FAULTS
        self.found[fault] += 1
        self.notes.append(f"{fault}: {note[:1500]}")

    def judge(self, result: Result, codes: tuple[int, ...] = (0, 1, 2), killed: bool = False) -> None:
        """Count what is wrong with how a command ended.

        Args:
            result: The command.
            codes: The exit codes that are right.
            killed: It may have been killed by the case itself.
        """
        self.results.append(result)
        text = result.out + result.err
        line = f"unidiff {' '.join(word[:80] for word in result.words)}"
        last = (result.err.strip().splitlines() or [""])[-1][:200]
        if result.hung:
            self.add("hangs over 5 s", line)
            return
        if _TRACES.search(text) or result.code in (70, 99) or (result.code < 0 and not killed):
            self.add("tracebacks", f"{line} -> {result.code}: {last}")
        elif result.code not in codes and not (killed and result.code == -signal.SIGKILL):
            self.add("wrong exit codes", f"{line} -> {result.code}: {last}")
        elif result.code in (1, 2) and not result.err.strip():
            self.add("wrong exit codes", f"{line} -> {result.code} without a word")
        if escape := _CONTROL.search(text):
            self.add("escape sequences", f"{line}: {escape[0]!r} in {last!r}")


def snapshot(*folders: Path) -> dict[str, str]:
    """Every name below some folders, with a digest of a file, the target of a link; only plain files are opened."""
    found = {}
    for folder in folders:
        for parent, names, files in os.walk(os.fsencode(folder)):
            for name in (*names, *files):
                path = os.path.join(parent, name)
                if os.path.islink(path):
                    content = os.readlink(path)
                elif os.path.isfile(path) and os.path.getsize(path) < 1 << 24:
                    with open(path, "rb") as file:
                        content = hashlib.sha256(file.read()).hexdigest().encode()
                else:
                    content = b"%d" % os.lstat(path).st_mode
                found[os.fsdecode(path)] = os.fsdecode(content)
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names that were made, changed or removed."""
    return sorted(name for name in before | after if before.get(name) != after.get(name))
