"""Standard streams that are closed, full or gone: what cannot be said is lost, and a training goes on."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from unidiff.errors import RunFailed

__all__ = ["usable_streams"]


class _Stream:
    """A standard stream whose first error leads what follows, and what is in its buffer, nowhere.

    Args:
        stream: Standard output or standard error.
        quiet: Whether the error is not raised.
    """

    def __init__(self, stream: io.TextIOWrapper, quiet: bool) -> None:
        self._stream, self._quiet = stream, quiet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._end(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        if isinstance(error, BrokenPipeError) and not self._quiet:
            raise error
        if not self._quiet:
            problem = f"standard output cannot be written to ({error.strerror}), so that the results are not all there"
            raise RunFailed(f"{problem}. What was saved is whole: send the output elsewhere.") from error


@contextmanager
def usable_streams() -> Iterator[None]:
    """Standard streams that can be written to while the block runs, whatever the caller left of them.

    A letter that an output does not have, one of ASCII say, gets its code. A closed one leads nowhere; no file that is
    opened later takes its number, to be written to by whatever prints. Errors of standard error are passed over: a
    full disk or a closed terminal ends no training. Those of standard output are a RunFailed.
    """
    before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}  # by their numbers
    with ExitStack() as opened:
        for name, stream in before.items():
            if stream is None:
                mode = "r" if name == "stdin" else "w"
                setattr(sys, name, opened.enter_context(open(os.devnull, mode, encoding="utf-8")))
            elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
                stream.reconfigure(errors="backslashreplace")
                setattr(sys, name, _Stream(stream, quiet=name == "stderr"))
        try:
            yield
        finally:
            for name, stream in before.items():
                setattr(sys, name, stream)
