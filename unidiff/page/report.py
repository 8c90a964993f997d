"""The page of one or several runs: what was trained on what, what it draws, how good that is, how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from unidiff.page.chart import Curve, chart
from unidiff.page.html import Markup, document, element, image_element, joined, number, plain, rows
from unidiff.page.results import evaluation, likelihood, solvers
from unidiff.text import operand

__all__ = ["Figure", "Pair", "RunFacts", "page"]

_ABOUT = {"process": "process", "parameterization": "network predicts", "objective": "objective"}
_ABOUT |= {"backbone": "network", "classifier": "network", "contrastive": "network", "codec": "autoencoder"}
_ABOUT |= {"low_rank": "changes of low rank", "control": "control branch"}
# Numbers of a manifest that have a place of their own.
_PLACED = {"parameters", "training_seconds", "loss", "sampling_seconds", "nfe", "seed", "seconds", "processes"}
_PLACED |= {"data", "libraries", "start", "teacher"}
_SAVED = "saved"  # status of a model that was trained in code or averaged later; see unidiff.run.extension
_ENVIRONMENT = ("unidiff", "git", "python", "platform", "processor", "threads", "device", "precision", "libraries")


@dataclass(frozen=True)
class Figure:
    """An image of a page: its bytes, what it shows, its format."""

    image: bytes
    alt: str
    kind: str = "png"


@dataclass(frozen=True)
class Pair:
    """A sample and the training sample that is nearest to it."""

    sample: bytes
    nearest: bytes


@dataclass(frozen=True)
class RunFacts:
    """What a page shows of one run.

    Attributes:
        content: Plain values; every number of the page is one of them.
        tiles: The samples, one image each, in the order of `content["samples"]["seeds"]`.
        path: Samples on their way from noise to data, an image for each of `content["path"]["times"]`.
        figures: Other figures of the run.
        pairs: In the order of `content["neighbours"]["pairs"]`.
    """

    content: Mapping[str, Any]
    tiles: Sequence[bytes] = ()
    path: Sequence[bytes] = ()
    figures: Sequence[Figure] = ()
    pairs: Sequence[Pair] = ()


def page(runs: Sequence[RunFacts]) -> str:
    """The page of runs, one beside the other."""
    runs = [replace(run, content=plain(run.content)) for run in runs]
    content = {"runs": [run.content for run in runs]}
    names = [str(run.content["name"]) for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.content["directory"]) for run in runs]
    body, links = [], []
    for title, section in _SECTIONS.items():
        parts = [section(content, number, run) for number, run in enumerate(runs)]
        if not any(parts):
            continue
        anchor = title.lower().replace(" ", "-")
        columns = [
            element("div", element("h3", name) if len(runs) > 1 else None, part or element("p", "Nothing of this run."))
            for name, part in zip(names, parts)
        ]
        links.append(element("li", element("a", title, href=f"#{anchor}")))
        head = element("h2", title, id=f"h-{anchor}")
        body.append(
            element("section", head, element("div", *columns, class_="runs"), id=anchor, aria_labelledby=f"h-{anchor}")
        )
    title = ", ".join(names)
    top = element("header", element("h1", title), element("nav", element("ul", *links), aria_label="sections"))
    close = element("form", element("button", "close", autofocus=True), method="dialog")
    large = element("dialog", element("img", alt=""), element("p"), close, id="large", aria_label="a sample, enlarged")
    main = element("main", *body, class_="several" if len(runs) > 1 else None)
    return document(f"{title} - unidiff", [top, main, large], content)


def _training(content: Any, index: int, run: RunFacts) -> Markup | None:
    manifest, recipe = run.content["manifest"], run.content["values"]
    data = manifest.get("data") or {}

    def value_at(*path: str | int) -> Markup | None:
        value: Any = run.content
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else number(content, "runs", index, *path)

    def with_unit(value: Markup | None, *unit: object) -> Markup | None:
        return None if value is None else joined([value, *unit])

    planned, evaluations = _section(recipe, "training").get("steps"), value_at("manifest", "nfe")
    each = " evaluation a sample" if manifest.get("nfe") == 1 else " evaluations a sample"
    facts: dict[str, object] = {
        "status": manifest.get("status"),
        "data": data.get("name"),
        "samples": with_unit(value_at("manifest", "data", "count"), " of shape ", _shape(data)),
        "checksum": data.get("checksum"),
        "note": data.get("stand_in"),
        **{title: _call(recipe[key]) for key, title in _ABOUT.items() if recipe.get(key) is not None},
        "parameters": value_at("manifest", "parameters"),
        "steps": with_unit(value_at("metrics", "last", "step"), f" of {planned:,}" if isinstance(planned, int) else ""),
        "training": with_unit(value_at("manifest", "training_seconds"), " s"),
        "final loss": value_at("manifest", "loss"),
        "sampling": with_unit(value_at("manifest", "sampling_seconds"), " s, ", evaluations, each),
        **{name: _origin(manifest.get(name)) for name in ("start", "teacher")},
        "extended": _extensions(manifest.get("extensions")),
    }
    others = (name for name, value in manifest.items() if type(value) in (int, float) and name not in _PLACED)
    facts |= {name.replace("_", " "): value_at("manifest", name) for name in others}
    for name, value in manifest.items():
        if isinstance(value, dict) and name not in _PLACED:  # such as the accuracy of a classifier at some times
            inner = [(key, part) for key, part in value.items() if type(part) in (int, float)]
            parts = [
                (f"{', ' if i else ''}{key}: ", value_at("manifest", name, key)) for i, (key, _) in enumerate(inner)
            ]
            facts[name] = joined(chain.from_iterable(parts)) if parts else None
    notes = [element("p", f"Left out: {note}", class_="note") for note in run.content.get("notes", ())]
    return joined([rows(facts), *notes])


def _section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return section if isinstance(section := recipe.get(name), dict) else {}


def _origin(value: Any) -> str | None:
    """A model that a run builds on."""
    if not isinstance(value, dict):
        return None
    step = value.get("step")
    return ", ".join(filter(None, (value.get("path"), None if step is None else f"step {step}", value.get("digest"))))


def _extensions(value: Any) -> str | None:
    """When and how a run was continued with other numbers or data."""
    changes = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return "; ".join(f"after step {each.get('step')}: {each.get('changes')}" for each in changes) or None


def _shape(data: Mapping[str, Any]) -> str:
    return " x ".join(map(str, data.get("shape") or ["?"]))


def _call(value: Any) -> str:
    """A component of a recipe as one would write it, without what is null or empty."""
    if isinstance(value, list):
        return f"[{', '.join(map(_call, value))}]"
    if not isinstance(value, dict):
        return str(value)
    inner = ", ".join(
        f"{key}={_call(part)}" for key, part in value.items() if key != "type" and part not in (None, False, [], "")
    )
    return f"{value.get('type', '')}({inner})"


def _loss(content: Any, index: int, run: RunFacts) -> Markup | None:
    metrics = run.content["metrics"]
    curve = Curve("loss", metrics["step"], metrics["loss"])
    title = f"loss of {run.content['name']} over optimiser steps"
    return chart(title, "optimiser step", "loss", [curve], "y")


def _samples(content: Any, index: int, run: RunFacts) -> Markup | None:
    parts: list[Markup] = []
    if run.tiles:
        seeds = run.content["samples"]["seeds"]
        buttons = [
            element("li", element("button", image_element(image, f"sample with seed {seed}"), type="button"))
            for image, seed in zip(run.tiles, seeds)
        ]
        parts += [
            element("ul", *buttons, class_="tiles"),
            element("p", f"{_drawn(run)} Click to enlarge.", class_="note"),
        ]
    for figure in run.figures:
        image = image_element(figure.image, figure.alt, figure.kind)
        parts.append(element("figure", image, element("figcaption", figure.alt)))
    return joined(parts) if parts else None


def _drawn(run: RunFacts) -> str:
    seeds, sampling = run.content["samples"]["seeds"], _section(run.content["values"], "sampling")
    how = ", ".join(_call(sampling[name]) for name in ("solver", "grid") if sampling.get(name) is not None)
    return f"Seeds {seeds[0]} to {seeds[-1]}; {how}." if how else f"Seeds {seeds[0]} to {seeds[-1]}."


def _path(content: Any, index: int, run: RunFacts) -> Markup | None:
    if not run.path:
        return None
    times, last = run.content["path"]["times"], len(run.path) - 1
    words = [
        f"state {state + 1} of {last + 1}" + ("" if times is None else f", time {times[state]:.3f}")
        for state in range(last + 1)
    ]
    images = [image_element(image, alt, hidden=state < last) for state, (image, alt) in enumerate(zip(run.path, words))]
    slider = element("input", type="range", min=0, max=last, value=last, step=1, aria_label="from noise to data")
    return element("div", *images, slider, element("output", words[-1]), class_="path")


def _neighbours(content: Any, index: int, run: RunFacts) -> Markup | None:
    if not run.pairs:
        return None
    figures = []
    for index_of_pair, (pair, facts) in enumerate(zip(run.pairs, run.content["neighbours"]["pairs"])):
        seed, row = facts["seed"], facts["row"]
        images = element(
            "div",
            image_element(pair.sample, f"sample with seed {seed}"),
            image_element(pair.nearest, f"training sample {row}"),
        )
        distance = number(content, "runs", index, "neighbours", "pairs", index_of_pair, "distance", digits=3)
        figures.append(
            element("figure", images, element("figcaption", f"seed {seed}, training sample {row}: ", distance))
        )
    mean = number(content, "runs", index, "neighbours", "held_out", digits=3)
    note = "A sample, and the training sample that is nearest to it, with their Euclidean distance. "
    held_out = run.content["neighbours"]["held_out"] is not None
    of_others = joined(["Held-out data are at ", mean, " from theirs on average."]) if held_out else None
    return joined([element("div", *figures, class_="pairs"), element("p", note, of_others, class_="note")])


def _recipe(content: Any, index: int, run: RunFacts) -> Markup | None:
    return element("pre", element("code", run.content["recipe"]), tabindex=0)


def _repeat(content: Any, index: int, run: RunFacts) -> Markup | None:
    manifest, values = run.content["manifest"], run.content["values"]
    directory, data = shlex.quote(operand(str(run.content["directory"]))), manifest.get("data") or {}
    option = " --allow-imports" if _imports(values) else ""
    lines = [
        "# the recipe above in recipe.yaml: the same data and processor give the same weights",
        f"unidiff run recipe.yaml --out again{option}",
    ]
    if manifest.get("status") == _SAVED or manifest.get("extensions"):
        lines = ["# the recipe above describes the model; its training is not repeated by it"]
    if "backbone" in values:  # a generative model
        lines += ["# more of its samples, other measures, and this page"]
        lines += [f"unidiff {words}{option}" for words in (f"sample {directory}", f"evaluate {directory}")]
        lines += [f"unidiff report {directory} --full{option}"]
    version, git = manifest.get("unidiff"), manifest.get("git")
    needs = f"unidiff {version}{'' if git is None else f', commit {git}'}" if version else None
    return joined(
        [
            rows({"needs": needs, "data": data.get("checksum"), "seed": values.get("seed")}),
            element("pre", element("code", "\n".join(lines)), tabindex=0),
        ]
    )


def _imports(value: Any) -> bool:
    """Whether a recipe names a class from outside unidiff, which is only loaded with --allow-imports."""
    if isinstance(value, dict):
        return ":" in str(value.get("type", "")) or any(map(_imports, value.values()))
    return isinstance(value, list) and any(map(_imports, value))


def _environment(content: Any, index: int, run: RunFacts) -> Markup | None:
    manifest = run.content["manifest"]
    facts = {name: manifest.get(name) for name in _ENVIRONMENT}
    if isinstance(libraries := facts["libraries"], dict):
        facts["libraries"] = ", ".join(f"{name} {version}" for name, version in libraries.items())
    whole = element("pre", element("code", json.dumps(manifest, indent=2)), tabindex=0)
    return joined([rows(facts), element("details", element("summary", "manifest.json"), whole)])


_SECTIONS: dict[str, Callable[[Any, int, RunFacts], Markup | None]] = {
    "Training": _training,
    "Loss": _loss,
    "Samples": _samples,
    "From noise to data": _path,
    "Evaluation": lambda content, index, run: evaluation(content, index),
    "Solvers": lambda content, index, run: solvers(content, index),
    "Nearest training samples": _neighbours,
    "Likelihood": lambda content, index, run: likelihood(content, index),
    "Recipe": _recipe,
    "How to repeat": _repeat,
    "Environment": _environment,
}
