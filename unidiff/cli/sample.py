"""`unidiff sample`: draw from a trained run."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import (
    AllowImports,
    Array,
    AsJson,
    Classes,
    Classifier,
    Device,
    Guidance,
    Images,
    Mask,
    Overrides,
    Picture,
)
from unidiff.cli.output_paths import check_place, free_name
from unidiff.errors import RunFailed, require_whole

__all__ = ["sample"]


def sample(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    count: Annotated[int | None, typer.Option(help="Number of samples; short for --set sampling.count.")] = None,
    classes: Classes = None,
    guidance: Guidance = None,
    classifier: Classifier = None,
    images: Images = None,
    mask: Mask = None,
    overrides: Overrides = None,
    array: Array = None,
    out: Picture = None,
    device: Device = "auto",
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Draw samples from a trained run with any solver and grid."""
    if count is not None:
        require_whole("--count", count, 1, 10_000_000)
    check_place("--array", array)
    check_place("--out", out, array)
    import numpy as np

    from unidiff import plot
    from unidiff.cli.console import Console
    from unidiff.cli.guidance_options import ConditionOptions
    from unidiff.run.directory import RunDirectory
    from unidiff.run.load import draw
    from unidiff.tasks.generation import load_generation
    from unidiff.tasks.generation_report import errors, rows

    options = ConditionOptions.read(classes, guidance, classifier, images, mask)
    with Console() as console:
        loaded = load_generation(
            run, overrides or [], device=device, allow_imports=allow_imports, report=console.notice
        )
        sampling, model = loaded.recipe.sampling, loaded.denoiser
        steered = options.apply(loaded, device, allow_imports, console.notice)
        asked, seeing, shown = list(options.classes), steered.conditioning, steered.examples
        # A row of each class or picture: as many as the user says, and else what fits a row.
        given = any(change.startswith("sampling.count=") for change in overrides or [])
        usual = sampling.count if given or not (asked or seeing) else (3 if seeing else 8)
        each = usual if count is None else count
        sampling = dataclasses.replace(sampling, count=each)
        cond = {name: value.repeat_interleave(each, 0) for name, value in shown.cond.items()}
        for value in cond.values():
            sampling = dataclasses.replace(sampling, count=len(value))
        picture = out or free_name(RunDirectory(run).samples)
        check_place("--out", picture)
        if stand_in := loaded.manifest.data and loaded.manifest.data.stand_in:
            console.notice(stand_in)
        started = time.perf_counter()
        solution = draw(
            steered.denoiser,
            sampling,
            loaded.recipe.data,
            loaded.precision,
            progress=lambda done, total: console.progress("sample", done, total),
            **cond,
        )
        x = solution.x.cpu()
        if broken := int((~x.isfinite()).flatten(1).any(1).sum()):
            console.notice(f"{broken} of {sampling.count} samples are not finite. Use smaller steps or less guidance.")
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
        "errors": found and dataclasses.asdict(found),
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
            print(f"errors: {found}")
        if array is not None:
            print(f"values: {array}")
