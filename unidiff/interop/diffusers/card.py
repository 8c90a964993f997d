"""The model card of an exported model: README.md as the Hugging Face hub shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unidiff._version import __version__
from unidiff.reading import Unreadable, read_bytes, read_json
from unidiff.tasks.generation import GenerationRun
from unidiff.text import count_of

__all__ = ["CARD", "PICTURE", "model_card", "picture"]

CARD, PICTURE = "README.md", "samples.png"
_LARGEST = 20_000_000  # bytes of a picture
_MEASURES = 12  # in the table


def picture(run: GenerationRun) -> bytes | None:
    """The samples that the run has drawn at its end; None if it has none."""
    with suppress(Unreadable):
        return read_bytes(run.directory / "samples" / "grid.png", _LARGEST)
    return None


def model_card(run: GenerationRun, pipeline: str | None, notices: Sequence[str], pictured: bool, folder: Path) -> str:
    """What the model is, what it was trained on, how good it is, and how it is used, in Markdown.

    Args:
        run: The run.
        pipeline: Class of diffusers that loads it; None if only the network was written.
        notices: What users should know, in sentences.
        pictured: Whether `PICTURE` lies beside the card.
        folder: The exported folder, as users will name it.
    """
    recipe, name = run.recipe, run.directory.absolute().name
    shape = recipe.data.decoded_shape
    about = ["library_name: diffusers"] if pipeline else []
    if len(shape) == 3 and not run.denoiser.conditions:
        about += ["pipeline_tag: unconditional-image-generation"]
    about += ["tags:", "- unidiff", "- diffusion"]
    parts = [
        "\n".join(["---", *about, "---", f"\n# {_plain(name)}\n"]),
        "A diffusion model trained by unidiff and exported for diffusers.",
    ]
    if pictured:
        parts.append(f"![samples of the model]({PICTURE})")
    parts += [_table(("", ""), _facts(run)), "## Use", _use(run, pipeline, folder)]
    if notices:
        parts.append("\n".join(f"- {_plain(notice)}" for notice in notices))
    if (measured := _evaluation(run)) is not None:
        parts += ["## Evaluation", measured]
    parts += ["## Recipe", "```yaml\n" + recipe.to_yaml().rstrip().replace("```", "'''") + "\n```"]
    return "\n\n".join(parts) + "\n"


def _facts(run: GenerationRun) -> list[tuple[str, str]]:
    """What the manifest knows of the model."""
    recipe, entries = run.recipe, dict(getattr(run.manifest, "entries", {}))
    data = getattr(run.manifest, "data", None)
    weights = sum(weight.numel() for weight in run.denoiser.backbone.parameters())
    facts = [
        ("process", repr(recipe.process)),
        ("predicts", repr(recipe.parameterization)),
        ("network", f"{recipe.backbone}, {weights:,} parameters"),
        ("samples", f"of shape {recipe.data.decoded_shape}"),
        ("conditions", ", ".join(own.name for own in run.denoiser.conditions or ()) or "none"),
        ("solver", f"{recipe.sampling.solver!r}, {recipe.sampling.grid_for(recipe.process)!r}"),
        ("trained for", f"{count_of(run.step, 'step')}, batches of {recipe.training.batch}"),
    ]
    if data is not None:
        facts.append(("data", f"{data.name}, {count_of(data.count, 'sample')}, {data.checksum}"))
        facts += [("note", data.stand_in)] if data.stand_in else []
    for key, title in (("training_seconds", "seconds"), ("loss", "final loss"), ("device", "device"), ("seed", "seed")):
        if entries.get(key) is not None:
            facts.append((title, f"{entries[key]}"))
    return [*facts, ("written by", f"unidiff {__version__}")]


def _use(run: GenerationRun, pipeline: str | None, folder: Path) -> str:
    """How the model is loaded: by diffusers, in Python, by the command."""
    name, lines = folder.name, list[str]()
    if pipeline is not None:
        call = "pipeline(class_labels=[0])" if pipeline == "DiTPipeline" else "pipeline()"
        lines += ["```python", "import diffusers", ""]
        lines += [f"pipeline = diffusers.{pipeline}.from_pretrained({name!r})", f"image = {call}.images[0]", "```", ""]
    chosen = " --class 0" if run.denoiser.classes is not None else ""
    lines += ["```", f"unidiff sample {json.dumps(name)}{chosen} --count 16 --out samples.png", "```", ""]
    lines += ["```python", "import unidiff as ud", ""]
    given = "" if not run.denoiser.classes else ", label=torch.tensor([0])"
    lines += ["import torch", ""] if given else []
    lines += [
        f"model = ud.load({name!r}).denoiser",
        f"x = ud.sample(model{given}).x",
        "```",
    ]
    return "\n".join(lines)


def _evaluation(run: GenerationRun) -> str | None:
    """The measures of the last evaluation of these weights, in a folder beside the run; None without one."""
    found = [path for path in run.directory.absolute().parent.glob("*/evaluate.json") if os.path.isfile(path)]
    for path in sorted(found, key=os.path.getmtime, reverse=True):
        with suppress(Unreadable, KeyError, TypeError, AttributeError):
            content: dict[str, Any] = read_json(path)
            own = [row for row in content["rows"] if row.get("digest") == run.digest]
            if not own:
                continue
            every, names = [content["floor"], *own], list(own[0]["measures"])[:_MEASURES]
            rows = [(name, *(_number(row["measures"].get(name)) for row in every)) for name in names]
            features, reference = content["features"]["network"], content["reference"]["data"]
            stands = (
                f"{own[0]['count']} samples, features of {features}, against {reference}; +- is one standard error."
            )
            return f"{_table(('', *(str(row['name']) for row in every)), rows)}\n\n{_plain(stands)}"
    return None


def _number(measure: dict[str, float] | None) -> str:
    return "" if measure is None else f"{measure['value']:.4g} +- {measure['error']:.2g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(str(cell)) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text in one line, without what Markdown or HTML would take for more."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
