"""`unidiff sample`: draw from a trained run."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.options import AllowImports, AsJson, Device, Overrides
from unidiff.cli.places import check_place, free_name
from unidiff.errors import RunError, RunFailed, require_whole

__all__ = ["sample"]


def sample(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    count: Annotated[int | None, typer.Option(help="Number of samples; short for --set sampling.count.")] = None,
    classes: Annotated[
        str | None,
        typer.Option("--class", metavar="K,...", help="Draw this class, or these, a row each; --count of each."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is the plain conditional model.")] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="The run of a classifier, for --guidance by its gradients.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="For a model told images: draw --count of this picture, and of each other; test images if not given.",
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --image, for a model of holes: white is to be drawn.")
    ] = None,
    overrides: Overrides = None,
    array: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Write the samples: float32, (N, *shape), in [-1, 1].")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write the picture here.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Draw samples from a trained run with any solver and grid."""
    asked = _classes(classes)
    if classifier is not None and guidance is None:
        raise RunError(f"--classifier {classifier}: say how much it counts with --guidance.")
    if asked:
        require_whole("--count", each := 8 if count is None else count, 1, 10_000_000)
        count = each * len(asked)
    changes = [*(overrides or []), *([f"sampling.count={count}"] if count is not None else [])]
    for option, path in (("--array", array), ("--out", out)):
        check_place(option, path)
    import numpy as np
    import torch

    from unidiff import plot
    from unidiff.cli.console import Console
    from unidiff.cli.imaging import conditioning_of, read_examples
    from unidiff.denoiser import Denoiser
    from unidiff.guidance.classifier import ClassifierGuidance
    from unidiff.guidance.linear import ClassifierFree
    from unidiff.run.conditional import errors, in_words, rows
    from unidiff.run.directory import RunDirectory
    from unidiff.run.load import draw, load, load_classifier

    with Console() as console:
        loaded = load(run, changes, device=device, allow_imports=allow_imports, report=console.notice)
        sampling, model = loaded.recipe.sampling, loaded.denoiser
        cond: dict[str, Any] = {}
        seeing = conditioning_of(loaded, images or [], mask)
        if seeing is not None:
            if asked:
                raise RunError(f"--class {classes}: {run} was trained with images, not with classes. Leave it out.")
            if guidance is not None and not seeing.dropout:
                problem = f"{run} has dropout 0: it never learnt what is likely without an image. Leave it out."
                raise RunError(f"--guidance {guidance:g}: {problem}")
            shown = read_examples(seeing, loaded, images or [], mask)
            each = sampling.count if any(c.startswith("sampling.count=") for c in changes) else 3
            cond["image"] = shown.cond["image"].repeat_interleave(each, 0)
            sampling = dataclasses.replace(sampling, count=len(cond["image"]))
        elif guidance is not None and not asked:
            raise RunError(f"--guidance {guidance:g}: there is nothing to guide to. Name classes with --class.")
        judge = None
        if classifier is not None:
            judge = load_classifier(classifier, device=device, allow_imports=allow_imports, report=console.notice)
        if asked:
            _check_classes(run, asked, model.classes if judge is None else judge.classes)
            cond["label"] = torch.tensor(asked).repeat_interleave(sampling.count // len(asked))
        guided: Denoiser = model
        if guidance is not None:
            guided = ClassifierFree(model, guidance) if judge is None else ClassifierGuidance(model, judge, guidance)
        picture = out or free_name(RunDirectory(run).samples)
        check_place("--out", picture)
        if stand_in := loaded.manifest.get("data", {}).get("stand_in"):
            console.notice(stand_in)
        started = time.perf_counter()
        solution = draw(
            guided,
            sampling,
            loaded.recipe.data,
            loaded.precision,
            progress=lambda done, total: console.progress("sample", done, total),
            **cond,
        )
        x = solution.x.cpu()
        found = None
        if seeing is not None:
            x = seeing.compose(x, cond)
            if shown.truth is not None:
                truth = shown.truth.repeat_interleave(each, 0)
                found = errors(model, seeing, sampling, cond["image"], truth, x, loaded.precision)
        seconds = time.perf_counter() - started
    grid = sampling.grid_for(loaded.recipe.process)
    title = f"{run.absolute().name}. {sampling.solver!r}, {grid!r}, seeds from {sampling.seed}."
    title += f" Classes {', '.join(map(str, asked))}." * bool(asked)
    title += f" Guidance {guidance:g}." if guidance is not None else ""
    columns = sampling.count // len(asked) if len(asked) > 1 else None
    pictures = x
    if seeing is not None:
        pictures, columns = rows(seeing, shown.cond["image"], x, shown.truth)
        title += " Condition, samples" + (", truth." if shown.truth is not None else ".")
    try:
        plot.save_samples(pictures, picture, f"{title}\n{stand_in}" if stand_in else title, columns)
        if array is not None:
            values = x.numpy().astype(np.float32)
            with array.open("wb") as file:  # np.save would add .npy to another ending
                np.save(file, values.clip(-1, 1) if values.ndim == 4 else values)
    except OSError as error:
        raise RunFailed(f"{error}. Choose other places with --out and --array.") from error
    result = {
        "run": str(run),
        "step": loaded.step,
        "count": sampling.count,
        "classes": asked or None,
        "guidance": guidance,
        "images": [str(path) for path in images or []] or None,
        "errors": found,
        "nfe": solution.nfe,
        "seconds": round(seconds, 2),
        "samples": str(picture),
        "array": str(array) if array else None,
        "stand_in": stand_in,
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{sampling.count} samples, {solution.nfe} evaluations each, {seconds:.1f} s: {picture}")
        if found is not None:
            print(f"errors: {in_words(found)}")
        if array is not None:
            print(f"values: {array}")


def _classes(text: str | None) -> list[int]:
    """The classes of `--class 0,1,2`."""
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise RunError(f"--class {text}: write whole numbers from 0, with commas between them, such as --class 0,1,2.")
    return [int(word) for word in words]


def _check_classes(run: Path, asked: list[int], known: int | None) -> None:
    """Refuse classes that the model was not trained with."""
    text = ",".join(map(str, asked))
    if known is None:
        raise RunError(f"--class {text}: {run} was trained without classes. Train a recipe that has `conditioning`.")
    if wrong := [k for k in asked if k >= known]:
        raise RunError(f"--class {text}: {run} knows the classes 0 to {known - 1}, and {wrong[0]} is none of them.")
