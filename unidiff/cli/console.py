"""What the user sees of a run: a progress bar in a terminal, a line every ten seconds in a log; tables as text."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from unidiff.machine import is_speaker
from unidiff.text import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Console", "say", "say_error", "styled", "width"]

_EVERY = 10.0  # seconds between lines when not in a terminal
_TITLES = {
    "train": "training",
    "sample": "sampling",
    "compare": "comparing",
    "reference": "reference flow",
    "evaluate": "evaluating",
    "tune": "tuning",
    "reproduce": "figures",
    "flow": "likelihood",
    "bound": "bound",
}


def say(text: str, error: bool = False) -> None:
    """Print text that may hold words of others: to standard output, or to standard error."""
    print(clean(text), file=sys.stderr if error else None, flush=error)


def styled(text: str, style: str, error: bool = False) -> str:
    """Text that is clean, with the codes of a style (ANSI, "1;31" is bold red) where it is shown in a terminal."""
    stream = sys.stderr if error else sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\x1b[{style}m{text}\x1b[0m"


def say_error(speaker: str, message: str) -> None:
    """Print the message of an error to standard error, in a terminal with the speaker and the carets in red."""
    first, *more = clean(message).split("\n")
    carets = [styled(line, "1;31", True) if line.strip(" |") == "^" else line for line in more]
    print("\n".join([f"{styled(f'{speaker}:', '1;31', True)} {first}", *carets]), file=sys.stderr, flush=True)


def width() -> int | None:
    """Columns of the terminal, or those that COLUMNS says; None where lines may be of any length."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(20, shutil.get_terminal_size().columns)
    return None


class Console:
    """Notices and progress on standard error; standard output is left to results. One of several processes speaks."""

    def __init__(self) -> None:
        self._silent = not is_speaker()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._loss: float | None = None
        self._said = float("-inf")
        self._ended = ("", 0)

    def __enter__(self) -> Console:
        if sys.stderr.isatty() and not self._silent:
            from rich import progress
            from rich.console import Console as Terminal

            columns: list[str | progress.ProgressColumn] = ["{task.description}", progress.BarColumn()]
            columns += [progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn()]
            self._bars = progress.Progress(*columns, "{task.fields[loss]}", console=Terminal(stderr=True))
            self._bars.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bars is not None:
            self._bars.stop()

    def notice(self, text: str) -> None:
        """Print a sentence that the user must see."""
        if self._silent:
            return
        if self._bars is not None:
            self._bars.console.print(clean(f"Note: {text}"), style="yellow", markup=False, highlight=False)
        else:
            say(f"Note: {text}", error=True)

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """Show how far a stage is."""
        if self._silent:
            return
        self._loss = loss if loss is not None else self._loss
        shown = f"loss {self._loss:.4f}" if stage == "train" and self._loss is not None else ""
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(_TITLES[stage], total=total, loss="", completed=done)
            self._bars.update(self._tasks[stage], completed=done, loss=shown)
            return
        now = time.monotonic()
        start, before = self._begun.setdefault(stage, (now, done))
        ends = done == total and self._ended != (
            stage,
            total,
        )  # told once, also of a stage that looks for more at its end
        if ends or now - self._said >= _EVERY:
            self._said = now
            self._ended = (stage, total) if done == total else ("", 0)
            left = (now - start) / max(1, done - before) * (total - done)
            parts = [f"{_TITLES[stage]} {done}/{total}", shown, f"{now - start:.0f} s", f"{left:.0f} s left"]
            print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)
