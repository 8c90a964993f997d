"""`unidiff tune`: a solver and a grid fitted to one's own model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unidiff.cli.console import Console, say
from unidiff.cli.options import (
    AsJson,
    GuidanceOptions,
    ImageOptions,
    ModelOptions,
    RunArgument,
    Settings,
    sample_conditions,
    split_conditions,
)
from unidiff.errors import ParameterError, RunError, require_whole
from unidiff.text import aligned, count_of
from unidiff.writable import require_file

if TYPE_CHECKING:
    from unidiff.evaluation.tuning import Tuning
    from unidiff.tasks.generation import Conditioned

__all__ = ["tune"]

_SAMPLING = {"a sampling section that unidiff tune wrote": b"# unidiff tune "}


def tune(
    run: RunArgument,
    nfe: Annotated[int, typer.Option(help="Number of function evaluations, at least 3.")],
    solvers: Annotated[
        str | None,
        typer.Option(
            "--solvers",
            "--solver",
            metavar="LIST",
            help="As for compare: those to choose from [default: all multistep].",
        ),
    ] = None,
    coefficients: Annotated[
        bool, typer.Option("--coefficients", help="Fit the weights of a linear multistep rule, too.")
    ] = False,
    count: Annotated[int, typer.Option(help="Samples to fit to, and as many held out to judge by.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the first sample.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples drawn together.")] = 128,
    at_guidance: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Guidance scales to judge at, too [default: 1,3 where there is guidance]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="File of the result [default: <run>-nfe<NFE>.yaml].")
    ] = None,
    *,
    steps: Annotated[str | None, typer.Option("--steps", hidden=True)] = None,  # for its message
    guidance: GuidanceOptions,
    images: ImageOptions,
    overrides: Settings = None,
    model: ModelOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of another kind.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit solver and times to a model at a number of evaluations, and write them as a `sampling` section."""
    if steps is not None:
        problem = "solvers are chosen at a number of evaluations, and a step of some takes several"
        raise RunError(f"--steps {steps}: {problem}. Use --nfe; a step of DDIM is one evaluation.")
    for name, value, least in (("--nfe", nfe, 3), ("--count", count, 20), ("--batch", batch, 1), ("--seed", seed, 0)):
        require_whole(name, value, least, 10_000_000 if name != "--seed" else 2**62)
    changes, named = split_conditions(overrides)
    if changes:
        raise RunError(f"--set {changes[0]}: `sampling` is what is tuned. Leave it out.")
    chosen, scales = sample_conditions(guidance, images, named), _scales(at_guidance)
    from unidiff.run.shipped import locate

    out = out or Path(f"{locate(run).absolute().name}-nfe{nfe}.yaml")
    require_file(out, "--out", {} if overwrite else _SAMPLING)
    from unidiff.cli.conditions import conditioned
    from unidiff.tasks.sampling_file import SamplingFile
    from unidiff.tasks.tuned import tune_run

    with Console() as console:
        loaded = model.load(run, [], console.notice)
        examples = None if images.images or images.mask else loaded.conditioned(2 * count).examples

        def under(scale: float | None) -> Conditioned:
            at_scale = dataclasses.replace(guidance, guidance=scale)
            return conditioned(loaded, at_scale, images, model, console.notice, examples, named)

        own, conditioning = under(guidance.guidance), loaded.recipe.conditions()
        if scales is None:  # beside the chosen one
            guided = conditioning is not None and conditioning.dropout > 0 and guidance.classifier is None
            scales = (1.0, 3.0) if guided else ()
        wanted = [scale for scale in scales if scale != (guidance.guidance or 1)]
        try:
            others = [(f"guidance {scale:g}", under(scale).denoiser) for scale in wanted]
        except RunError as error:
            raise RunError(str(error).replace("--guidance", "--at-guidance", 1)) from error
        try:
            tuning = tune_run(
                loaded,
                own,
                nfe,
                solvers=None if solvers is None else tuple(filter(None, map(str.strip, solvers.split(",")))),
                coefficients=coefficients,
                others=others,
                count=count,
                seed=seed,
                batch=batch,
                progress=lambda done, total: console.progress("tune", done, total),
            )
        except ParameterError as error:
            raise RunError(f"--{error}") from error
        for note in tuning.notes:
            console.notice(note)
        how = f"unidiff tune {run} --nfe {nfe}{' --coefficients' if coefficients else ''}"
        facts = {name: value for name, value in chosen.facts().items() if value is not None}
        under_which = "".join(f", {name} {value}" for name, value in facts.items())
        SamplingFile.write(out, tuning.sampling, f"{how}{under_which}\n{_gain(tuning)}")
    if as_json:
        print(json.dumps({"run": str(run), "step": loaded.step, **facts, "file": str(out), **tuning.to_dict()}))
        return
    table = [["", "evaluations", "default", "tuned", "ratio"]]
    for row in tuning.rows:
        tuned, ratio = ("-" if x is None else f"{x:.2{f}}" for x, f in ((row.tuned, "e"), (row.ratio, "f")))
        table.append([row.what, str(row.nfe), f"{row.default:.2e}", tuned, ratio])
    say(aligned(table))
    say(_gain(tuning))
    say(f"{out}: use it with `unidiff sample {run} --sampling {out}`, or copy it into a recipe.")


def _scales(text: str | None) -> tuple[float, ...] | None:
    """The numbers of --at-guidance."""
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise RunError(f"--at-guidance {text}: write numbers separated by commas, as in --at-guidance 1,3.") from None


def _gain(tuning: Tuning) -> str:
    """The errors in a sentence."""
    errors = f"rms from the exact flow on {tuning.count} held-out seeds: {tuning.error:.2e}"
    return f"{errors} with {count_of(tuning.nfe, 'evaluation')}; the default {tuning.default_error:.2e}."
