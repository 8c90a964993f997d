"""What a run records of itself, typed: the entries of manifest.json and of `--json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Protocol

from pydantic import TypeAdapter

from unidiff.data.base import OpenDataset
from unidiff.errors import is_whole
from unidiff.text import count_of

__all__ = [
    "METRICS_LIMIT",
    "DataFacts",
    "Manifest",
    "Origin",
    "Outcome",
    "Report",
    "TrainingOutcome",
    "manifest_of",
    "metrics_of",
]

METRICS_LIMIT = 1 << 30  # bytes of metrics.jsonl, whose lines have about 100
_HUGE = 1e100  # a loss above it cannot be drawn, and is none: float32 ends at 3e38


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
    class_names: list[str] | None = None

    @classmethod
    def of(cls, data: OpenDataset) -> DataFacts:
        """Those of opened data."""
        names = None if data.class_names is None else list(data.class_names)
        return cls(data.name, len(data), list(data.shape), data.checksum, data.stand_in, names)


@dataclass(frozen=True)
class Origin:
    """A model that a run builds on.

    Attributes:
        path: Its run or folder, as the recipe names it.
        digest: SHA-256 of its weights, and of the recipe of a teacher.
        step: Optimiser steps that its weights have seen; None if it is not known.
    """

    path: str
    digest: str
    step: int | None = None

    def __str__(self) -> str:
        return self.path if self.step is None else f"{self.path}, step {self.step}"


@dataclass(frozen=True)
class Report:
    """What a task reports of its trained model; a kind adds fields."""

    training_seconds: float
    loss: float

    def rows(self) -> Mapping[str, str | None]:
        """Lines for people, by title; None is left out."""
        return {}


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training run has done, and what it depends on beside its recipe.

    Attributes:
        status: "training", "finished" or "dry run".
        processes: Number of processes that shared each batch.
        precision: Number format of the network's arithmetic.
        parameters: Number of weights.
        trained: Number of weights that are not frozen; None for all.
        start: Where the weights at the beginning are from; None for fresh ones.
        teacher: The model that the objective needs.
        coupling: Digest of each file that the coupling reads; None if it reads none.
        needs: The memory and the time that training takes at least, of a dry run.
        finished: When it ended, as ISO 8601.
        seconds: How long training and report took.
    """

    directory: str
    status: str
    seed: int
    device: str
    processes: int
    precision: str
    data: DataFacts
    parameters: int
    trained: int | None = None
    start: Origin | None = None
    teacher: Origin | None = None
    coupling: Mapping[str, str] | None = None
    needs: str | None = None
    finished: str | None = None
    report: Report | None = None
    seconds: float | None = None

    def entries(self) -> dict[str, Any]:
        """The entries of the manifest: every field but the directory, the report's beside them; no None."""
        fields = asdict(self)
        fields |= fields.pop("report") or {}
        return {name: value for name, value in fields.items() if name != "directory" and value is not None}

    def to_dict(self) -> dict[str, Any]:
        """See `Outcome.to_dict`."""
        return {"directory": self.directory, **self.entries()}

    def text(self) -> str:
        """A line for each thing worth knowing, titles aligned."""
        data, report = self.data, self.report
        rows: dict[str, str | None] = {
            "data": f"{data.name}, {count_of(data.count, 'sample')} of shape {tuple(data.shape)}",
            "note": data.stand_in,
            "network": f"{self.parameters:,} parameters, {self.precision} on {self.device}",
            "needs": self.needs,
            "trained": None if self.trained is None else f"{self.trained:,} parameters; the others are frozen",
            "start": None if self.start is None else str(self.start),
            "teacher": None if self.teacher is None else str(self.teacher),
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
        status: "training", "finished", "interrupted", "failed" or "damaged data"; empty if it is not known.
        recipe_yaml: The recipe that it was last started or continued with; None if recipe.yaml alone tells.
        kept: Digest of each file that the data need, by its path in the run directory.
        data: What it was trained on; None if it is not known.
        start: Where the weights at its beginning were from; None for fresh ones.
        teacher: The model that its objective needs; None if it needs none.
        coupling: Digest of each file that its coupling reads, by parameter.
        extensions: When and how its numbers or data were changed, each with the steps done, in order.
        entries: Everything that was recorded.
    """

    started: str = ""
    status: str = ""
    recipe_yaml: str | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    data: DataFacts | None = None
    start: Origin | None = None
    teacher: Origin | None = None
    coupling: Mapping[str, str] = field(default_factory=dict)
    extensions: Sequence[Mapping[str, Any]] = ()
    entries: Mapping[str, Any] = field(default_factory=dict)


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def manifest_of(entries: Mapping[str, Any]) -> Manifest:
    """The manifest with these entries; a ValidationError if one of those that decide something is of another type."""
    return _adapter().validate_python({**entries, "entries": entries})


def metrics_of(line: bytes) -> dict[str, Any] | None:
    """What a line of metrics.jsonl says, numbers by name; None if it is damaged."""
    with suppress(ValueError, RecursionError):
        values = json.loads(line)
        if isinstance(values, dict) and is_whole(values.get("step"), 0, 2**53):
            numbers: list[Any] = [values.get(name) for name in ("loss", "seconds")]
            return values if all(type(number) in (int, float) and abs(number) < _HUGE for number in numbers) else None
    return None
