"""A study: rows of numbers, measured once for each seed, as a table of means, a record with provenance and a figure."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unidiff.data.base import Dataset
from unidiff.errors import RunFailed, UnidiffError, require, require_whole
from unidiff.evaluation.distances import Estimate
from unidiff.evaluation.evaluate import evaluate
from unidiff.evaluation.real import RealData
from unidiff.evaluation.scores import shown
from unidiff.files import digest, whole_files
from unidiff.plot.diagrams import Curve
from unidiff.plot.dots import Dots, save_dots
from unidiff.run.environment import environment
from unidiff.run.output import ANOTHER
from unidiff.writable import require_writable

__all__ = [
    "QUALITIES",
    "Measured",
    "Row",
    "Study",
    "Table",
    "draw_qualities",
    "main",
    "qualities",
    "redraw",
    "run_study",
]

_BYTES = 2_000_000  # of one study, about
QUALITIES = ("frechet", "precision", "recall", "memorization")


class Row(NamedTuple):
    """What was measured of one case with one seed.

    Attributes:
        name: The case.
        numbers: By name.
        facts: What they depend on beside the script and the seed; the same for every row and seed.
    """

    name: str
    numbers: Mapping[str, float]
    facts: Mapping[str, Any] = {}


Measured = Iterable[Row]


@dataclass(frozen=True)
class Table:
    """The numbers of a study.

    Attributes:
        values: By row and name, one for each seed.
    """

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Append the numbers of one more seed."""
        for name, number in row.numbers.items():
            self.values.setdefault(row.name, {}).setdefault(name, []).append(float(number))

    def estimate(self, row: str, name: str) -> Estimate:
        """Mean over the seeds, and its standard error: standard deviation / sqrt(seeds); nan of a single seed."""
        values = self.values[row][name]
        mean = math.fsum(values) / len(values)
        if len(values) < 2:
            return Estimate(mean, math.nan)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return Estimate(mean, math.sqrt(squares / (len(values) - 1) / len(values)))

    def curve(self, label: str, points: Mapping[float, tuple[str, str]]) -> Curve:
        """Numbers, each of a row and a name, over what they are keyed by, with their errors."""
        values = [self.estimate(row, name) for row, name in points.values()]
        return Curve(label, label, list(points), [value for value, _ in values], [_bar(error) for _, error in values])

    def dots(self, name: str, title: str, floor: str = "") -> Dots:
        """A number of all rows that have it, with its errors; the mean of the row `floor` is a line."""
        rows = [row for row, numbers in self.values.items() if name in numbers and row != floor]
        cases = [(row, value, _bar(error)) for row in rows for value, error in [self.estimate(row, name)]]
        return Dots(title, cases, self.estimate(floor, name).value if floor else None)

    def text(self) -> str:
        """A table in Markdown: mean +- standard error."""
        names = list(dict.fromkeys(name for numbers in self.values.values() for name in numbers))
        rows = [
            [row, *(_cell(*self.estimate(row, name)) if name in numbers else "" for name in names)]
            for row, numbers in self.values.items()
        ]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (["", *names], ["---"] * (1 + len(names)), *rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is not finite is None, as the standard error of a single seed."""

        def plain(row: str, name: str, values: list[float]) -> dict[str, Any]:
            mean, error, *each = (
                value if math.isfinite(value) else None for value in (*self.estimate(row, name), *values)
            )
            return {"mean": mean, "standard_error": error, "values": each}

        return {
            row: {name: plain(row, name, values) for name, values in numbers.items()}
            for row, numbers in self.values.items()
        }

    @classmethod
    def from_dict(cls, rows: Mapping[str, Any]) -> Table:
        """The inverse of `to_dict`, in which a value that was not finite is nan."""
        return cls(
            {
                row: {name: [math.nan if x is None else x for x in kept["values"]] for name, kept in numbers.items()}
                for row, numbers in rows.items()
            }
        )


def _cell(value: float, error: float) -> str:
    """Mean and error in words; a count that is the same for all seeds as it is."""
    return f"{value:.0f}" if value.is_integer() and not error > 0 else shown(Estimate(value, error))


def _bar(error: float) -> float:
    """The length of an error bar; none for a single seed."""
    return 0.0 if math.isnan(error) else error


@dataclass(frozen=True)
class Study:
    """A question, and how it is answered.

    Attributes:
        name: Of its files.
        question: In a sentence.
        source: Who has asked it, and where.
        measure: From a seed, and whether the quick form is asked for, to the rows.
        draw: From the table to a figure at a path.
    """

    name: str
    question: str
    source: str
    measure: Callable[[int, bool], Measured]
    draw: Callable[[Table, Path], None]


def run_study(
    study: Study,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    out: str | Path = Path("runs/studies"),
    quick: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
) -> Table:
    """Measure a study; after each seed its files hold all that has been measured by then.

    Args:
        study: The study.
        seeds: Of everything random, each at least 0, without repetition.
        out: Where NAME.json and NAME.png are written; those that are there are replaced.
        quick: Smaller in all respects: it shows that the script works, its numbers show nothing.
        report: Receives a line for each row.

    Raises:
        UnidiffError: If a seed is not allowed, or files cannot be written.
    """
    require(len(seeds) > 0 and len({*seeds}) == len(seeds), "seeds", list(seeds), "different integers, at least one")
    for seed in seeds:
        require_whole("seeds", seed, 0, 2**39)
    out = Path(out)
    require_writable(out, _BYTES, ANOTHER)
    table, facts, script = Table(), dict[str, Any](), study.measure.__code__.co_filename
    used = {"file": Path(script).name, "digest": digest(script)}
    started, cpu = time.perf_counter(), time.process_time()
    for done, seed in enumerate(seeds, 1):
        for row in study.measure(seed, quick):
            table.add(row)
            facts |= row.facts
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in row.numbers.items())
            report(f"seed {seed}, {time.process_time() - cpu:.0f} CPU s: {row.name}: {numbers}")
        content = {
            "study": study.name,
            "question": study.question,
            "source": study.source,
            "quick": quick,
            "seeds": list(seeds[:done]),
            "rows": table.to_dict(),
            "facts": facts,
            "seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "script": used,
            "environment": environment(),
        }
        try:
            with whole_files(out, f"{study.name}.json") as folder:
                study.draw(table, folder / f"{study.name}.png")
                (folder / f"{study.name}.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise RunFailed(f"{out}: {error}. {ANOTHER}") from error
    return table


def redraw(study: Study, out: str | Path = Path("runs/studies")) -> Table:
    """Draw the figure of a study again from its record, without measuring anything.

    Args:
        study: The study.
        out: Where NAME.json is, and NAME.png is written.

    Raises:
        RunFailed: If there is no such record, or it cannot be read.
    """
    record = Path(out) / f"{study.name}.json"
    try:
        table = Table.from_dict(json.loads(record.read_text())["rows"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFailed(f"{record}: cannot be read as the record of a study: {error!r}") from error
    study.draw(table, record.with_suffix(".png"))
    return table


def main(description: str, study: Study) -> None:
    """What a script of a study does when it is run itself.

    Args:
        description: The script's docstring.
        study: The study.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training or more for each")
    parser.add_argument("--quick", action="store_true", help="a small form, whose numbers show nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="output directory")
    parser.add_argument("--redraw", action="store_true", help="draw the figure from the record in --out again")
    words = parser.parse_args()

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    try:
        if words.redraw:
            redraw(study, words.out)
            return
        table = run_study(study, words.seeds, out=words.out, quick=words.quick, report=report)
    except UnidiffError as error:
        parser.error(str(error))
    print(f"{study.question}\nMean +- standard error over {len(words.seeds)} seeds.\n\n{table.text()}")


def qualities(
    samples: Mapping[str, Tensor], data: Dataset | RealData, seed: int, names: Sequence[str] = QUALITIES
) -> dict[str, Row]:
    """Measures of sets of samples, by name, and of real data, "real data"; see `unidiff.evaluate`.

    Args:
        samples: (N, *shape) each, by name.
        data: As for `evaluate`.
        seed: Of the choice of real data.
        names: The measures.
    """
    found = evaluate(samples, data, seed=seed)
    facts = {"evaluation": {name: value for name, value in found.facts.items() if name != "seed"}}
    return {
        row.name: Row(row.name, {name: row.measures[name].value for name in names if name in row.measures}, facts)
        for row in (found.floor, *found.rows)
    }


def draw_qualities(table: Table, path: Path, caption: str) -> None:
    """Draw distance, precision and recall of the cases of a table, beside those of real data."""
    names = {"frechet": "Frechet distance", "precision": "precision", "recall": "recall"}
    save_dots([table.dots(name, title, "real data") for name, title in names.items()], path, caption)
