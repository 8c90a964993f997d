"""Tasks whose results are files, written together or not at all."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import Unpack

from unidiff.errors import RunFailed
from unidiff.files import whole_files
from unidiff.lock import locked
from unidiff.machine import is_speaker
from unidiff.run.output import check_output
from unidiff.run.task import Options, Reporter, Task
from unidiff.training.device import resolve_device

__all__ = ["ResultsOutcome", "ResultsTask"]


@dataclass(frozen=True)
class ResultsOutcome:
    """What was computed and written.

    Attributes:
        directory: Where the files are.
        content: The content of the summary file.
        files: Names of the files; empty for a dry run.
        table: The numbers, for people.
    """

    directory: Path
    content: Mapping[str, object]
    files: tuple[str, ...] = ()
    table: str = ""

    def to_dict(self) -> dict[str, object]:
        """See `Outcome.to_dict`."""
        return {"status": "finished" if self.files else "dry run", "directory": str(self.directory), **self.content}

    def text(self) -> str:
        """The table, and the files."""
        if not self.files:
            return f"{self.directory}{os.sep} (dry run: nothing was written)"
        return f"{self.table.rstrip()}\n{self.directory}{os.sep}: {', '.join(self.files)}"


class ResultsTask(Task):
    """A task that computes results and writes them.

    Attributes:
        results: What the results are, in a word: "comparison".
        files: Names of the files; the last, the summary in JSON, is the one by which older results are recognised.
    """

    results: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    @abstractmethod
    def compute(self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool) -> ResultsOutcome:
        """Compute the results and write them; see `Task.run`."""

    def size(self) -> int:
        """Bytes of all files, about; figures are most of it."""
        return 20_000_000

    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> ResultsOutcome:
        """Compute, and write table and figures; see `Task.run`."""
        if options.get("resume"):
            self.resumed(directory)
        device = resolve_device(options.get("device", "auto"))
        overwrite = options.get("overwrite", False)
        if options.get("dry_run"):
            self.check_output(directory, overwrite)
            self.check_named(reporter, device, options.get("allow_imports", False))
            return ResultsOutcome(directory, {"recipe": self.to_dict()})
        with self.reserved(directory, overwrite):
            return self.compute(directory, reporter, device, options.get("allow_imports", False))

    def check_output(self, directory: Path, overwrite: bool) -> None:
        """Raise a RunError if the results cannot be written into a directory; nothing is changed."""
        exists = os.path.isfile(directory / self.files[-1])
        check_output(directory, self.results, exists, overwrite, self.size(), own=self.files)

    @contextmanager
    def reserved(self, directory: Path, overwrite: bool) -> Iterator[None]:
        """As `check_output`, and keep other processes from writing results there in the meantime.

        Of several processes that work together the first one does so, which writes.
        """
        if not is_speaker():
            yield
            return
        self.check_output(directory, overwrite)
        with locked(directory):
            yield

    @contextmanager
    def written(self, directory: Path, content: Mapping[str, object]) -> Iterator[Path]:
        """A folder for the files, which replace those in the directory together; `content` is the summary.

        Raises:
            RunFailed: If they cannot be written.
        """
        try:
            with whole_files(directory, self.files[-1]) as folder:
                (folder / self.files[-1]).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
                yield folder
        except OSError as error:
            raise RunFailed(f"{directory}: {error}. Choose another directory with --out.") from error
