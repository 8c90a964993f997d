"""The result of an evaluation: the measures of each set of samples, as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from unidiff.evaluation.class_measures import ClassHistogram
from unidiff.evaluation.distances import Estimate
from unidiff.text import aligned

__all__ = ["COSTS", "MEASURES", "Evaluation", "Scores", "shown"]

# Name in JSON and CSV -> title, in the order of the table.
MEASURES = {
    "frechet": "Frechet distance",
    "frechet_corrected": "  without its bias",
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "classifier_score": "classifier score",
    "confidence": "confidence",
    "memorization": "memorisation ratio",
    "sharpness": "sharpness",
    "bits_flow": "bits/dim, flow",
    "bits_bound": "bits/dim, bound",
}
# What a set cost -> title.
COSTS = {
    "nfe": "evaluations",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "joules_per_1000": "joules per 1,000",
}
_NORMAL = 1.96  # standard errors on each side of an interval of 95 %
_WIDTH = 80
_LONGEST = 32  # characters of a column's title


@dataclass(frozen=True)
class Scores:
    """One set of samples.

    Attributes:
        name: What it is called.
        count: Number of samples.
        measures: By name, see `MEASURES`: value and standard error.
        histogram: The classes found; None if nothing is classified.
        cost: Evaluations, seconds and more, by name; empty if the samples were not drawn here.
        facts: Where the samples are from.
    """

    name: str
    count: int
    measures: Mapping[str, Estimate]
    histogram: ClassHistogram | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of each measure the value, its standard error and the 95 % interval, None if there is none."""
        measures = {
            name: {
                "value": _plain(value),
                "error": _plain(error),
                "interval": [_plain(value - _NORMAL * error), _plain(value + _NORMAL * error)],
            }
            for name, (value, error) in self.measures.items()
        }
        histogram = None if self.histogram is None else asdict(self.histogram)
        return {
            "name": self.name,
            "count": self.count,
            **self.facts,
            "measures": measures,
            "classes": histogram,
            "cost": dict(self.cost),
        }


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The measures of several sets of samples against one reference. It prints as a table.

    Attributes:
        rows: The sets.
        floor: Real data, measured like the samples.
        facts: What every number depends on: data, features and their digest, counts, seed, number format, version.
        notes: What the user must know.
    """

    rows: tuple[Scores, ...]
    floor: Scores
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.rows)
        return f"Evaluation({names}; reference: {self.facts['reference']['data']})"

    def __str__(self) -> str:
        return "\n\n".join(aligned(table) for table in self.tables())

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return f"<pre>{escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **self.facts,
            "floor": self.floor.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """A line for each set, the floor first; each measure with its standard error and the ends of its interval."""
        every = [self.floor, *self.rows]
        names = [name for name in MEASURES if any(name in row.measures for row in every)]
        costs = [name for name in COSTS if any(name in row.cost for row in every)]
        features, reference = self.facts["features"], self.facts["reference"]
        shared = {
            "features": features["network"],
            "features_digest": features["digest"],
            "reference": reference["data"],
            "reference_count": reference["count"],
            "seed": self.facts["seed"],
            "unidiff": self.facts["unidiff"],
        }
        out = io.StringIO()
        ends = ("", "_error", "_low", "_high")
        head = ["name", "count", *(name + end for name in names for end in ends), "chi_square", "p_value", *costs]
        writer = csv.DictWriter(out, [*head, *shared], lineterminator="\n")
        writer.writeheader()
        for row in every:
            line: dict[str, Any] = {"name": row.name, "count": row.count, **row.cost, **shared}
            for name, (value, error) in row.measures.items():
                values = (value, error, value - _NORMAL * error, value + _NORMAL * error)
                line |= {name + end: number for end, number in zip(ends, values)}
            if row.histogram is not None:
                line |= {"chi_square": row.histogram.chi_square, "p_value": row.histogram.p_value}
            writer.writerow(line)
        return out.getvalue()

    def tables(self, width: int = _WIDTH) -> Iterator[list[list[str]]]:
        """Tables of text no wider than `width`: a line for each measure, a column for each set, the floor first."""
        shared = _shared_end([row.name for row in self.rows])
        columns = [_column(row, shared) for row in (self.floor, *self.rows)]
        titles = {**MEASURES, "classes": "chi-square of classes", **COSTS}
        used = {name: title for name, title in titles.items() if any(name in column for column in columns)}
        first = max(map(len, used.values()), default=0)
        while columns:
            block: list[dict[str, str]] = []
            while columns and (not block or _width(first, [*block, columns[0]]) <= width):
                block.append(columns.pop(0))
            own = {name: title for name, title in used.items() if any(name in column for column in block)}
            rows = [[title, *(column.get(name, "") for column in block)] for name, title in own.items()]
            yield [["", *(column["name"] for column in block)], *rows]


def _plain(value: float) -> float | None:
    """A number as JSON has it: a single sample has no standard error."""
    return value if math.isfinite(value) else None


def _width(first: int, columns: Sequence[Mapping[str, str]]) -> int:
    return first + sum(2 + max(map(len, column.values())) for column in columns)


def _shared_end(names: Sequence[str]) -> str:
    """What all names end with after a comma, if one of them is too long to be shown: it tells none apart."""
    if max(map(len, names), default=0) <= _LONGEST or len({*names}) < len(names) or len(names) < 2:
        return ""
    parts = [name.split(", ") for name in names]
    count = 0
    while len({tuple(own[-count - 1 :]) for own in parts}) == 1:
        count += 1
    return ", " + ", ".join(parts[0][-count:]) if count else ""


def _column(row: Scores, shared: str) -> dict[str, str]:
    """The cells of a set, by name, without the end of it that all sets share."""
    title = row.name.removesuffix(shared)
    title = title if len(title) <= _LONGEST else f"...{title[3 - _LONGEST :]}"  # of a path the end
    cells = {"name": title} | {name: shown(estimate) for name, estimate in row.measures.items()}
    if row.histogram is not None:
        cells["classes"] = f"{row.histogram.chi_square:.1f} (p = {row.histogram.p_value:.2g})"
    return cells | {name: f"{value:.4g}" for name, value in row.cost.items()}


def shown(estimate: Estimate) -> str:
    """Value and standard error, two digits of that."""
    value, error = estimate
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}" if digits < 9 else f"{value:.2e} +- {error:.0e}"
