"""`unidiff ema`: the model of a run with an average of its weights of another length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unidiff.cli.options import AsJson, ModelOptions, RunArgument
from unidiff.errors import ParameterError, RunError, complaint

__all__ = ["ema"]


def ema(
    run: RunArgument,
    sigma_rel: Annotated[
        float, typer.Option(help="Length of the average, as a share of the steps: above 0 and below 0.288.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The run directory to write [default: <run>-ema-<sigma-rel>].")
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="The step at which it ends, one with a snapshot [default: the last].")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")] = False,
    *,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Average the weights of a run over another length, and write the model as a run."""
    from unidiff.cli.console import Console, say
    from unidiff.run.posthoc import posthoc_ema

    target = out or Path(f"{run}-ema-{sigma_rel:g}")
    with Console() as console:
        try:
            made = posthoc_ema(
                run, sigma_rel, step=step, out=target, overwrite=overwrite, report=console.notice, **vars(model)
            )
        except ParameterError as error:
            option = f"--{error.parameter.replace('_', '-')}"
            raise RunError(complaint(option, error.problem)) from error
    facts = made.manifest.entries["posthoc_ema"]
    if as_json:
        print(json.dumps({"directory": str(target), **facts}))
    else:
        length = f"sigma_rel = {sigma_rel:g} at step {made.step}, its profile to {facts['error']:.2%}"
        say(f"{target}: {run} with the average of {length}")
