"""`unidiff sample`: draw from a trained run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import (
    AsJson,
    GuidanceOptions,
    ImageOptions,
    ModelOptions,
    RunArgument,
    Settings,
    SolverOptions,
    sample_conditions,
    split_conditions,
)
from unidiff.cli.output import OutputOptions
from unidiff.cli.pipeline_options import PipelineOptions
from unidiff.errors import require_whole

__all__ = ["sample"]


def sample(
    run: RunArgument,
    count: Annotated[int | None, typer.Option(help="Number of samples; shorthand for --set sampling.count.")] = None,
    sampling_file: Annotated[
        Path | None,
        typer.Option("--sampling", metavar="FILE.yaml", help="A file with a `sampling` section, of unidiff tune."),
    ] = None,
    *,
    drawn: SolverOptions,
    guidance: GuidanceOptions,
    images: ImageOptions,
    pipeline: PipelineOptions,
    overrides: Settings = None,
    output: OutputOptions,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Draw samples from a trained run with any solver and grid; under torchrun each process draws its share."""
    if count is not None:
        require_whole("--count", count, 1, 10_000_000)
    output.keep(*images.files, *pipeline.files)
    from unidiff.cli.conditions import conditioned
    from unidiff.cli.console import Console
    from unidiff.cli.editing import write_samples
    from unidiff.run.shared import Processes
    from unidiff.solver.finite import not_finite
    from unidiff.tasks.generation_report import errors, rows
    from unidiff.tasks.sampling_file import SamplingFile

    labels, (changes, named) = guidance.names, split_conditions(overrides)
    changes, named = [*changes, *pipeline.overrides(run)], {**named, **pipeline.values}
    chosen = sample_conditions(guidance, images, named)
    if sampling_file is not None:
        changes = [*SamplingFile.overrides(sampling_file, allow_imports=model.allow_imports), *changes]
    with Console() as console:
        processes = Processes.join(model.device, console.notice)
        model = dataclasses.replace(model, device=processes.device)
        loaded = model.load(run, changes, console.notice, drawn)
        denoiser, examples, conditioning = conditioned(loaded, guidance, images, model, console.notice, values=named)
        different = max(map(len, examples.cond.values()), default=1)
        # A row of each class, image or caption: as many as the user says, and else what fits a row.
        if count is None and not any(change.startswith("sampling.count=") for change in changes):
            count = 3 if conditioning is not None else 8 if labels or different > 1 else None
        each = loaded.recipe.sampling.count if count is None else count
        cond = {name: value.repeat_interleave(each, 0) for name, value in examples.cond.items()}
        sampling = dataclasses.replace(loaded.recipe.sampling, count=max([each, *map(len, cond.values())]))
        folder = output.folder_of(run)
        if stand_in := loaded.manifest.data and loaded.manifest.data.stand_in:
            console.notice(stand_in)
        started = time.perf_counter()
        solution = processes.draw(
            denoiser,
            sampling,
            loaded.recipe.data,
            loaded.precision,
            progress=lambda done, total: console.progress("sample", done, total),
            **cond,
        )
        if not processes.main:
            return
        x = solution.x.cpu()
        if (problem := not_finite(x)) is not None:
            console.notice(problem)
        error = None
        if conditioning is not None:
            x = conditioning.compose(x, cond)
            if examples.truth is not None:
                truth = examples.truth.repeat_interleave(each, 0)
                error = errors(loaded.denoiser, conditioning, sampling, cond, truth, x, loaded.precision)
        seconds = time.perf_counter() - started
    title = f"{run.absolute().name}. {sampling.in_words(loaded.recipe.process)}."
    title += f" Classes {', '.join(map(str, labels))}." * bool(labels)
    title += "".join(f" {name} = {value}." for name, value in named.items())
    title += f" Guidance {guidance.guidance:g}." if guidance.guidance is not None else ""
    shown, columns = x, each if different > 1 else None
    if conditioning is not None:
        shown, columns = rows(conditioning, examples.cond["image"], x, examples.truth)
        title += " Condition, samples" + (", truth." if examples.truth is not None else ".")
    title += f"\n{stand_in}" if stand_in else ""
    result = {"run": str(run), "step": loaded.step, "count": sampling.count, **chosen.facts()}
    result |= {"nfe": solution.nfe, "seconds": round(seconds, 2), "errors": error, "stand_in": stand_in}
    write_samples(x, shown, title, output, folder, result, as_json, columns)
