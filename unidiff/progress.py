"""A progress bar for calls from Python: `progress=True`, in a terminal, in a notebook, or as lines of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, shown: bool = True) -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, total) that draws a bar on standard error until the block ends; None if it is not shown.

    Args:
        what: Title of the bar: "sample".
        shown: Whether to show it.
    """
    if not shown:
        yield None
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
    with progress.Progress(
        "{task.description}", *columns, progress.TimeRemainingColumn(), console=Console(stderr=True)
    ) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
