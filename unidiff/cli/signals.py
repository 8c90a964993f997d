"""Signals of the keyboard and of job schedulers: they end a command in words, or stop a training that saves itself."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "StopOnSignal", "ended_by_signals"]

# Ctrl-C; what ends a job; a closed terminal; warnings before a time limit. Windows has the first two.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Interruption(KeyboardInterrupt):
    """A signal ended a command.

    Attributes:
        exit_code: What the command exits with, as in a shell: 128 and the signal's number.
    """

    def __init__(self, number: int, when: str = "") -> None:
        self.exit_code = 128 + number
        super().__init__(f"interrupted by {signal.Signals(number).name}{when}.")


class StopOnSignal:
    """Turns a signal into a request to stop after the current step, which calls of the object report.

    Before the first call there is nothing to save, and a signal ends the command. Afterwards only a second Ctrl-C does,
    and not once the request has been reported: the checkpoint is then being written. Of several processes, which get
    Ctrl-C from the terminal and from their launcher, none is ended so.

    Attributes:
        number: The signal that asked; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._polled = self._reported = False

    def __call__(self) -> bool:
        """Whether a signal has asked for a stop."""
        self._polled = True
        self._reported = self.number is not None
        return self._reported

    @property
    def exit_code(self) -> int:
        """What a command that was stopped exits with; as for Ctrl-C if another process had the signal."""
        return 128 + (self.number or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Heed signals while the block runs."""
        with _handled_by(self._hear):
            yield

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._polled:
            raise Interruption(number, " before the first step; nothing new was saved")
        if self.number is None:
            self.number = number
        elif number == signal.SIGINT and not self._reported and "RANK" not in os.environ:
            raise Interruption(number, " again; the last checkpoint is kept, and --resume continues from it")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Each signal raises an Interruption while the block runs, so that no half-written file is left."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interruption(number)

    with _handled_by(end):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that there are, save those that the parent had ignored (`nohup`), while the block runs."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python lets no other thread handle signals
    heard = [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
