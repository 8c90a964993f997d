"""The result of a comparison: rows, fitted orders, notes; as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from unidiff.evaluation.distances import Estimate

__all__ = ["Comparison", "Distances", "Line", "Row"]

_FITTED = 3  # points of a line that its order is fitted to
_FLAT = 0.5  # of the steepest slope: what falls more slowly afterwards is another error, such as that of the last step
_CLEAR = 10  # how many times its own error a reference must be away to say anything of a solver's


class Distances(NamedTuple):
    """How far samples are from the true distribution; None for what was not measured.

    Attributes:
        energy: Energy distance in data space.
        sliced: Sliced Wasserstein distance in data space.
        features: Energy distance in feature space.
    """

    energy: Estimate | None = None
    sliced: Estimate | None = None
    features: Estimate | None = None


@dataclass(frozen=True)
class Row:
    """One solver at one number of evaluations.

    Attributes:
        model: Label of the model.
        label: Solver and grid in a few words.
        solver: Solver, as a recipe's constructor call.
        grid: Grid with its steps, likewise.
        steps: Intervals of the grid.
        requested: Evaluations asked for; None where solver or grid decide it.
        nfe: Evaluations per sample, counted.
        seconds: Time of drawing all samples.
        deterministic: Whether a sample depends on its start alone.
        rms: Root mean square difference from the true flow, over samples and dimensions; None for a solver that draws
            noise on the way.
        distances: From the true distribution.
        x: The first samples in pixels, on the CPU.
    """

    model: str
    label: str
    solver: str
    grid: str
    steps: int
    requested: int | None
    nfe: int
    seconds: float
    deterministic: bool
    rms: float | None
    distances: Distances
    x: Tensor = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the samples, as plain values: one column each."""
        names = ("model", "label", "solver", "grid", "steps", "requested", "nfe", "seconds", "deterministic", "rms")
        return {name: _plain(getattr(self, name)) for name in names} | _columns(self.distances)


class Line(NamedTuple):
    """The rows of one solver on one grid and model.

    Attributes:
        model: Label of the model.
        label: Solver and grid in a few words.
        rows: In order of their evaluations.
        order: Fitted order of convergence of the rms error in the number of evaluations, before the curve flattens;
            None where it cannot be told.
    """

    model: str
    label: str
    rows: tuple[Row, ...]
    order: float | None


@dataclass(frozen=True)
class Comparison:
    """What `unidiff.compare` found.

    Attributes:
        rows: In the order of the models, the solvers and the numbers of evaluations.
        count: Samples drawn for each row.
        followed: How many of them, the first, were held against the true flow.
        flow_errors: Model -> error of its reference solution: how far the ends moved when the steps were last halved.
        baseline: Distances of fresh samples of the truth, as many as each row has: what a perfect solver would show.
        notes: What was left out, and why.
        truth: Model -> ends of the true flow from the starts of the first samples, in pixels.
    """

    rows: tuple[Row, ...]
    count: int
    followed: int
    flow_errors: dict[str, float]
    baseline: Distances
    notes: tuple[str, ...]
    truth: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The rows of each model and solver, with the fitted order."""
        grouped: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            grouped.setdefault((row.model, row.label), []).append(row)
        lines = []
        for (model, label), rows in grouped.items():
            rows.sort(key=lambda row: row.nfe)
            lines.append(Line(model, label, tuple(rows), _order(rows, self.flow_errors.get(model, 0.0))))
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the samples, as plain values; numbers that are not finite become None."""
        return {
            "count": self.count,
            "followed": self.followed,
            "flow_errors": {model: _plain(error) for model, error in self.flow_errors.items()},
            "baseline": _columns(self.baseline),
            "orders": [{"model": line.model, "label": line.label, "order": _plain(line.order)} for line in self.lines],
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_json(self) -> str:
        """The result as one JSON object."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """The rows as CSV, with a header line; what was not measured is empty."""
        rows = [row.to_dict() for row in self.rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _columns(distances: Distances) -> dict[str, float | None]:
    columns = {}
    for name, estimate in distances._asdict().items():
        columns[name] = _plain(estimate and estimate.value)
        columns[f"{name}_error"] = _plain(estimate and estimate.error)
    return columns


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _order(rows: list[Row], floor: float) -> float | None:
    """Minus the least-squares slope of log rms over log evaluations, of the last points before the curve flattens.

    Left out are points that the reference does not resolve, and all from where the slope, once it has been steepest,
    is below half of that: there an error shows that steps do not mend, as that of the denoise that ends a run.
    """
    clear = [row for row in rows if row.rms is not None and _CLEAR * floor < row.rms < math.inf]
    points = [(math.log(row.nfe), math.log(row.rms)) for row in clear if row.rms]
    slopes = [(b - d) / (c - a) for (a, b), (c, d) in pairwise(points) if c > a]
    if not slopes or len(slopes) != len(points) - 1:
        return None
    last = slopes.index(max(slopes)) + 1
    while last < len(slopes) and slopes[last] >= _FLAT * max(slopes):
        last += 1
    points = points[: last + 1][-_FITTED:]
    x, y = (sum(column) / len(points) for column in zip(*points))
    return -sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
