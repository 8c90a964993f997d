"""Sections of a page that show measured results: of an evaluation, a comparison of solvers, a likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unidiff.evaluation.scores import COSTS, MEASURES
from unidiff.page.chart import Curve, chart
from unidiff.page.html import Markup, element, joined, number, table

__all__ = ["evaluation", "likelihood", "solvers"]

_CURVES = {"rms": "rms from the exact flow", "energy": "energy distance", "features": "energy distance in features"}


def evaluation(content: Any, index: int) -> Markup | None:
    """The measures of real data, the floor, and of the run's samples."""
    results = content["runs"][index].get("evaluation")
    if not results:
        return None
    base = ("runs", index, "evaluation")
    columns = [(*base, "floor"), *((*base, "rows", row_index) for row_index in range(len(results["rows"])))]
    sets: list[Mapping[str, Any]] = [results["floor"], *results["rows"]]
    body: list[list[object]] = []
    for name, title in MEASURES.items():
        if any(name in each["measures"] for each in sets):
            cells = [
                _estimate(content, (*where, "measures", name)) if name in each["measures"] else None
                for where, each in zip(columns, sets)
            ]
            body.append([title.strip(), *cells])
    if any(each.get("classes") for each in sets):
        cells = [
            number(content, *where, "classes", "chi_square", digits=3) if each.get("classes") else None
            for where, each in zip(columns, sets)
        ]
        body.append(["chi-square of classes", *cells])
    for name, title in COSTS.items():
        if any(name in each["cost"] for each in sets):
            body.append(
                [
                    title,
                    *(
                        number(content, *where, "cost", name) if name in each["cost"] else None
                        for where, each in zip(columns, sets)
                    ),
                ]
            )
    features, reference = results["features"], results["reference"]
    note = [
        f"Features of {', '.join(filter(None, (features['network'], features['digest'])))}; ",
        f"reference: {reference['data']}, ",
        number(content, *base, "reference", "count"),
        " samples; +- is one standard error. Real data are the floor: no model can be expected to do better.",
    ]
    head = ["", "real data", *(row["name"] for row in results["rows"])]
    return joined([table(head, body, "Measures of samples"), element("p", *note, class_="note")])


def _estimate(content: Any, where: tuple[str | int, ...]) -> Markup:
    """Value and standard error, with two digits of that."""
    error: Any = content
    for key in (*where, "error"):
        error = error[key]
    known = isinstance(error, (int, float)) and 1e-8 < error < 1e8
    places = max(0, 1 - math.floor(math.log10(error))) if known else None
    pair = [number(content, *where, name, places=places) for name in ("value", "error")]
    return joined([pair[0], " +- ", pair[1]])


def solvers(content: Any, index: int) -> Markup | None:
    """The curves of a comparison, and its table."""
    results = content["runs"][index].get("comparison")
    if not results:
        return None
    base, lines = ("runs", index, "comparison"), dict[str, list[Mapping[str, Any]]]()
    for row in results["rows"]:
        lines.setdefault(row["label"], []).append(row)
    parts: list[Markup | None] = []
    used = [name for name in _CURVES if any(row.get(name) is not None for row in results["rows"])]
    for name in used:
        curves = [
            Curve(label, [nfe for nfe, _ in points], [value for _, value in points], True, colour)
            for colour, (label, line) in enumerate(lines.items())
            if (points := [(row["nfe"], row[name]) for row in line if row.get(name) is not None])
        ]
        parts.append(element("h4", _CURVES[name]))
        parts.append(chart(f"{_CURVES[name]} over evaluations", "evaluations", _CURVES[name], curves, "xy"))
    body: list[list[object]] = [
        [
            row["label"],
            number(content, *base, "rows", row_index, "nfe"),
            number(content, *base, "rows", row_index, "seconds", digits=3),
            *(number(content, *base, "rows", row_index, name, digits=3) if name in row else None for name in used),
        ]
        for row_index, row in enumerate(results["rows"])
    ]
    true = results["baseline"]
    floor = [number(content, *base, "baseline", name, digits=3) if name in true else None for name in used]
    body.append(["true samples", None, None, *floor])
    titles = ["solver", "evaluations", "seconds", *(_CURVES[name] for name in used)]
    count = joined([number(content, *base, "count"), " samples for each. ", *(f"{note} " for note in results["notes"])])
    return joined([*parts, table(titles, body, "Solvers at equal evaluations"), element("p", count, class_="note")])


def likelihood(content: Any, index: int) -> Markup | None:
    """Flow and bound in bits, and the terms of the bound."""
    results = content["runs"][index].get("likelihood")
    if not results:
        return None
    base = ("runs", index, "likelihood")
    body: list[list[object]] = [
        [name, *(_estimate(content, (*base, name, unit)) for unit in ("bits_per_dim", "nats"))]
        for name in ("flow", "bound")
    ]
    terms = results["bound"]["terms"]
    parts = [("decoder", "decoder"), ("steps", "steps between"), ("prior", "prior")]
    pieces = [[title, number(content, *base, "bound", name, digits=4)] for name, title in parts]
    curve = Curve("nats", terms["time"], terms["nats"])
    caption = joined([number(content, *base, "count"), " test samples; +- is one standard error."])
    return joined(
        [
            table(["", "bits per dimension", "nats"], body, "Log-likelihood"),
            element("p", caption, class_="note"),
            table(["term of the bound", "nats"], pieces, "Terms of the bound"),
            chart("terms of the bound over time", "time", "nats of a step", [curve], "y"),
        ]
    )
