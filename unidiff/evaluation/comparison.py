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

from unidiff.display import Pictured
from unidiff.evaluation.distances import Estimate

__all__ = ["Comparison", "Distances", "Line", "Row"]

_FITTED = 3  # points of a line that its order is fitted to
_FLAT = 0.5  # of the steepest slope: below it another error dominates, such as that of the last step
_ALIKE = 0.1  # by how much two slopes in sequence differ at most where the error is asymptotic
_RESOLVED = 10  # how many times the error of the reference a solver's error must be


class Distances(NamedTuple):
    """Distances of samples from the data distribution; None if not measured.

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
        label: Short form of solver and grid.
        solver: Solver, as a constructor call.
        grid: Grid with its steps, likewise.
        steps: Intervals of the grid.
        requested: Requested evaluations, or steps; None where solver or grid determine them.
        nfe: Evaluations per sample, counted.
        seconds: Time of drawing all samples.
        deterministic: Whether a sample depends on its start alone.
        rms: Root mean square difference from the exact flow, over samples and dimensions; None for a solver that draws
            noise; infinite if samples are not finite.
        distances: From the data distribution.
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
        names = [name for name in self.__dataclass_fields__ if name not in ("distances", "x")]
        return {name: _plain(getattr(self, name)) for name in names} | _columns(self.distances)


class Line(NamedTuple):
    """The rows of one solver on one grid and model.

    Attributes:
        model: Label of the model.
        label: Short form of solver and grid.
        rows: In order of their evaluations.
        order: Fitted order of convergence of the rms error in the number of evaluations, before the curve flattens;
            None where the error is not asymptotic.
    """

    model: str
    label: str
    rows: tuple[Row, ...]
    order: float | None


@dataclass(frozen=True, repr=False)
class Comparison(Pictured):
    """The result of `unidiff.compare`.

    Attributes:
        rows: In the order of the models, the solvers and the numbers of evaluations.
        count: Samples drawn for each row.
        followed: How many of them, the first, were compared with the exact flow.
        flow_errors: Model -> error of its reference solution: change of the ends when the steps were last halved.
        baseline: Distances of fresh reference samples: what perfect samples score.
        notes: What was left out, and why.
        truth: Model -> ends of the exact flow from the starts of the first samples, in pixels.
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
        for rows in grouped.values():
            rows.sort(key=lambda row: row.nfe)
        orders = [_order(rows, self.flow_errors.get(model, 0.0)) for (model, _), rows in grouped.items()]
        return tuple(Line(*key, tuple(rows), order) for (key, rows), order in zip(grouped.items(), orders))

    def in_short(self) -> dict[str, Any]:
        """A line for each solver: evaluations and errors; see `Displayed.in_short`."""

        def error(row: Row) -> str:
            found = row.rms if row.rms is not None else row.distances.energy and row.distances.energy.value
            return f"{row.nfe}: {'-' if found is None else format(found, '.3g')}"

        lines = {f"{line.model}: " * bool(line.model) + line.label: line.rows for line in self.lines}
        return {"samples": self.count} | {label: "; ".join(map(error, rows)) for label, rows in lines.items()}

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

    def to_csv(self, model: str = "") -> str:
        """The rows as CSV, with a header line; empty where not measured. `model` names the only model."""
        rows = [{**row.to_dict(), "model": row.model or model} for row in self.rows]
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

    An error c h^p (1 + e h) has slopes that come closer to p as the steps h shrink. Where the last two slopes differ by
    more than a tenth, the error is not asymptotic and a slope says nothing about the method: the answer is None.

    Left out are points that the reference does not resolve, and all from where the slope, after its steepest, is below
    half of that: there another error dominates that more steps do not reduce, such as that of the final denoise.
    """
    errors = [(row.nfe, row.rms) for row in rows if row.rms and _RESOLVED * floor < row.rms < math.inf]
    points = [(math.log(nfe), math.log(rms)) for nfe, rms in errors]
    slopes = [(b - d) / (c - a) for (a, b), (c, d) in pairwise(points) if c > a]
    if not slopes or len(slopes) != len(points) - 1:
        return None
    last = slopes.index(max(slopes)) + 1
    while last < len(slopes) and slopes[last] >= _FLAT * max(slopes):
        last += 1
    points = points[: last + 1][-_FITTED:]
    if last < _FITTED - 1 or abs(slopes[last - 1] - slopes[last - 2]) > _ALIKE * max(slopes[last - 2 : last]):
        return None
    x, y = (sum(column) / len(points) for column in zip(*points))
    return -sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
