"""`unidiff likelihood`: the likelihood of test data under a trained run."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

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
from unidiff.errors import ParameterError, RunError, is_whole, require, require_whole
from unidiff.text import aligned, count_of

__all__ = ["likelihood"]

_DECODERS = {"large": 1.0, "small": 0.0, "learned": None}


def likelihood(
    run: RunArgument,
    count: Annotated[int, typer.Option(help="Samples of the test split; all if there are fewer.")] = 100,
    probes: Annotated[int | None, typer.Option(help="Random probes that estimate the divergence [default: 1].")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Use the exact divergence, for low dimensions.")] = False,
    bound: Annotated[bool, typer.Option("--bound", help="Also compute the variational bound and its terms.")] = False,
    steps: Annotated[
        int | None, typer.Option(help="Equally spaced times of the bound [default: the process's own, or 1000].")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="Variance of the bound's decoder: large (beta_1), small (beta-tilde_2, as in published programs) or "
            "learned [default: large]."
        ),
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(help="Values that a pixel can take, 0 for continuous data [default: 256 for images, else 0]."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Error tolerance of each step of the ODE solver.")] = 1e-5,
    seed: Annotated[int, typer.Option(help="Seed of the first sample's probes and noise; sample i has seed + i.")] = 0,
    batch: Annotated[int, typer.Option(help="Samples evaluated together.")] = 100,
    *,
    solver: Annotated[str | None, typer.Option(hidden=True)] = None,  # for its message
    guidance: GuidanceOptions,
    overrides: Settings = None,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Log-likelihood and bits per dimension of the test split, by the probability flow.

    A model of classes is unconditional unless --class says otherwise: `--class own` is each sample's own class. A model
    conditioned on images is given those made from the samples, and, if it has classes too, the samples' own classes
    unless --class names others.
    """
    for name, value, least in (("--count", count, 1), ("--batch", batch, 1), ("--seed", seed, 0)):
        require_whole(name, value, least, 2**62)
    require(0 < tolerance < math.inf, "--tolerance", tolerance, "a number > 0")
    allowed = "0 for continuous data, or an integer from 2 to 65536"
    require(levels is None or levels == 0 or is_whole(levels, 2, 2**16), "--levels", levels, allowed)
    if exact and probes is not None:
        raise RunError(f"--probes {probes}: the exact divergence uses no probes. Leave out --probes or --exact.")
    if solver is not None:
        problem = "the likelihood follows the probability flow by a solver that chooses its own steps"
        raise RunError(f"--solver {solver}: {problem}. Use --tolerance to say how exactly.")
    if steps is not None and not bound:
        remedy = "Add --bound, or use --tolerance for the flow, whose solver chooses its own steps."
        raise RunError(f"--steps {steps}: this is an option of the bound. {remedy}")
    require(decoder in (None, *_DECODERS), "--decoder", decoder, " or ".join(_DECODERS))
    if decoder is not None and not bound:
        raise RunError(f"--decoder {decoder}: this is an option of the bound. Add --bound, or leave out --decoder.")
    decoder = decoder or "large"
    import torch

    from unidiff.cli.conditions import conditioned
    from unidiff.divergence import ExactTrace, Hutchinson
    from unidiff.grid import Grid, Native, Uniform
    from unidiff.likelihood import check_data, log_likelihood
    from unidiff.variational import variational_bound

    if probes is not None:
        require_whole("--probes", probes, 1, 1_000_000)
    if tolerance < (smallest := torch.finfo(torch.float32).eps / 2):
        require(False, "--tolerance", tolerance, f"a number >= {smallest:.2g}, the rounding of float32 states")
    trace = ExactTrace() if exact else Hutchinson(1 if probes is None else probes)
    grid: Grid | None = None if steps is None else Uniform(steps)
    with Console() as console:
        changes, named = split_conditions(overrides)
        loaded = model.load(run, changes, console.notice)
        if decoder == "learned" and not loaded.denoiser.learned_variance:
            problem = "this model predicts no variance. Use large or small, or leave it out."
            raise RunError(f"--decoder learned: {problem}")
        if loaded.recipe.data.coded:
            problem = "this is a latent model, whose density is not the likelihood of images"
            raise RunError(f"{run}: {problem}. For that of latents, call unidiff.log_likelihood from Python.")
        source = loaded.recipe.data.open("test")
        if source.stand_in:
            console.notice(source.stand_in)
        count = min(count, len(source))
        # In float32, whatever the run was trained in: an adaptive solver takes rounding for motion.
        x = source.batch(torch.arange(count), next(loaded.denoiser.parameters()).device)
        levels = (256 if x.ndim > 3 else None) if levels is None else levels or None
        try:
            check_data(x, levels)
        except ParameterError as error:
            if error.parameter != "levels":
                raise
            remedy = "Pass the number of values that a pixel can take, or 0 for continuous data."
            raise RunError(f"--levels: the data have values other than these {levels} levels. {remedy}") from error

        facts, examples = sample_conditions(guidance, values=named).facts(), None
        if own := guidance.classes == ["own"]:
            if source.labels is None:
                raise RunError(f"--class own: {source.name} has no classes. Leave it out.")
            guidance = dataclasses.replace(guidance, classes=None)
        if own or loaded.denoiser.image is not None:  # the conditions that the samples themselves have
            examples = loaded.own_conditions(source, torch.arange(count))
        chosen = conditioned(loaded, guidance, ImageOptions(), model, console.notice, examples, named, own=True)
        cond = chosen.in_turn(count)
        options = {**named, **({"label": ",".join(map(str, guidance.names))} if guidance.names else {})}
        used = {name: options.get(name, "own") for name in cond}

        def measured(stage: str, compute: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
            started = time.perf_counter()
            value = compute(
                chosen.denoiser,
                x,
                levels=levels,
                seeds=range(seed, seed + count),
                batch=batch,
                progress=lambda done, total: console.progress(stage, done, total),
                **cond,
            )
            (nats, nats_error), (bits, bits_error) = _plain(*value.nats), _plain(*value.bits)
            facts = {"nats": nats, "nats_error": nats_error, "bits_per_dim": bits, "bits_per_dim_error": bits_error}
            return value, {**facts, "nfe": value.nfe, "seconds": round(time.perf_counter() - started, 2)}

        result: dict[str, Any] = {"run": str(run), "step": loaded.step, "data": source.name}
        result |= {"stand_in": source.stand_in, "count": count, "levels": levels}
        result |= {name: value for name, value in facts.items() if value is not None}
        result["conditions"] = used
        flow, numbers = measured("flow", partial(log_likelihood, trace=trace, rtol=tolerance, atol=tolerance))
        result["flow"] = {"trace": repr(trace), **numbers}
        if flow.standard_error is not None:
            result["flow"]["probe_error"] = float(flow.standard_error.square().mean().sqrt())
        if bound:
            grid = grid or (Uniform(1000) if loaded.denoiser.process.native_times() is None else Native())
            compute = partial(variational_bound, grid=grid, decoder_variance=_DECODERS[decoder])
            lower, numbers = measured("bound", compute)
            result["bound"] = {
                "grid": repr(grid),
                "decoder": decoder,
                **numbers,
                "terms": [_plain(*term) for term in lower.steps],
            }
    print(json.dumps(result)) if as_json else _print(result)


def _plain(mean: float, error: float) -> tuple[float, float | None]:
    """A mean and its standard error; a single sample has none, and JSON no NaN."""
    return mean, None if math.isnan(error) else error


def _print(result: dict[str, Any]) -> None:
    values = f"{result['levels']} levels" if result["levels"] else "continuous"
    say(f"{result['data']}, {count_of(result['count'], 'sample')}, {values}; means and their standard errors")
    if used := result.get("conditions"):
        say(f"conditions: {', '.join(f'{name} {value}' for name, value in used.items())}")
    table = [["", "nats", "bits per dimension", "evaluations", "seconds"]]
    for name in ("flow", "bound"):
        if row := result.get(name):
            means = [
                f"{row[key]:.{digits}f}"
                + ("" if row[f"{key}_error"] is None else f" +- {row[f'{key}_error']:.{digits}f}")
                for key, digits in (("nats", 2), ("bits_per_dim", 4))
            ]
            table.append([name, *means, f"{row['nfe']}", f"{row['seconds']:.1f}"])
    say(aligned(table))
    if "bound" in result:
        decoder, *between, prior = [mean for mean, _ in result["bound"]["terms"]]
        kind = result["bound"]["decoder"]
        say(f"Terms of the bound, nats: decoder ({kind}) {decoder:.2f}, steps {sum(between):.2f}, prior {prior:.4f}")
    if "probe_error" in result["flow"]:
        say(f"Standard error of one sample's nats from its probes: {result['flow']['probe_error']:.2f}")
