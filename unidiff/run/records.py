"""What a run records of itself, typed; `to_dict` gives the entries of manifest.json and of `--json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from unidiff.data.base import OpenDataset

__all__ = ["DataFacts", "Facts", "Manifest", "Outcome", "Report", "TrainingOutcome"]


class Outcome(Protocol):
    """What a task has done, for programs and for people."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what `--json` prints."""

    def text(self) -> str:
        """Lines for people."""


@dataclass(frozen=True)
class DataFacts:
    """Which data a run was trained on."""

    name: str
    count: int
    shape: list[int]
    checksum: str
    stand_in: str | None = None

    @classmethod
    def of(cls, source: OpenDataset) -> DataFacts:
        """Those of opened data."""
        return cls(source.name, len(source), list(source.shape), source.checksum, source.stand_in)


@dataclass(frozen=True)
class Facts:
    """What a training run depends on beside its recipe."""

    seed: int
    device: str
    processes: int
    precision: str
    data: DataFacts
    parameters: int


@dataclass(frozen=True)
class Report:
    """What a task reports of its trained model. A kind adds fields; None is left out of `to_dict`."""

    training_seconds: float
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def rows(self) -> Mapping[str, str | None]:
        """Lines for people, by title; None is left out."""
        return {}


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training run has done.

    Attributes:
        status: "finished" or "dry run".
        directory: The run directory.
        facts: What it depends on.
        report: What the task reports; None for a dry run.
        finished: When it ended, as ISO 8601.
        seconds: How long it took.
    """

    status: str
    directory: str
    facts: Facts
    report: Report | None = None
    finished: str | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The entries of the manifest, and the directory."""
        facts = dataclasses.asdict(self.facts)
        if self.report is None:
            return {"status": self.status, "directory": self.directory, **facts}
        return {"directory": self.directory, **facts, **self.summary()}

    def summary(self) -> dict[str, Any]:
        """What training added to the facts."""
        report = {} if self.report is None else self.report.to_dict()
        return {"status": self.status, "finished": self.finished, **report, "seconds": self.seconds}

    def text(self) -> str:
        """A line for each thing worth knowing, titles aligned."""
        facts, data, report = self.facts, self.facts.data, self.report
        rows: dict[str, str | None] = {
            "data": f"{data.name}, {data.count} samples of shape {tuple(data.shape)}",
            "note": data.stand_in,
            "network": f"{facts.parameters:,} parameters, {facts.precision} on {facts.device}",
        }
        if report is not None:
            rows["training"] = f"{report.training_seconds:.0f} s, final loss {report.loss:.4f}"
            rows |= report.rows()
        rows["run"] = f"{self.directory}/" + ("" if report is not None else " (dry run: nothing was written there)")
        width = max(10, *(len(name) for name, value in rows.items() if value))
        return "\n".join(f"{name:>{width}}  {value}" for name, value in rows.items() if value)


@dataclass(frozen=True)
class Manifest:
    """manifest.json as read: the entries that decide something, and all of them.

    Attributes:
        started: When the run began; empty if it is not known.
        kept: Digest of each file that the data need, by its path in the run directory.
        data: What it was trained on; None if it is not known.
        entries: Everything that was recorded.
    """

    started: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
    data: DataFacts | None = None
    entries: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Manifest:
        """The manifest of a file's text.

        Raises:
            ValueError: If it is not a manifest.
        """
        entries = json.loads(text)
        try:
            known = [part.name for part in dataclasses.fields(DataFacts)]
            data = entries.get("data")
            facts = None if data is None else DataFacts(**{name: data[name] for name in known if name in data})
            return cls(entries.get("started", ""), entries.get("kept", {}), facts, entries)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a manifest: {error}") from error
