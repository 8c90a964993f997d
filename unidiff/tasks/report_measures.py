"""What `unidiff report --full` measures of a run: samples, evaluation, solvers, neighbours, likelihood."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from unidiff import plot
from unidiff.errors import RecipeError, UnidiffError
from unidiff.evaluation.evaluate import as_saved
from unidiff.evaluation.memorization import nearest
from unidiff.evaluation.real import real_data
from unidiff.page.report import Pair, RunFacts
from unidiff.run.load import Run
from unidiff.run.page import image_bytes
from unidiff.run.results import ResultsTask
from unidiff.run.task import Reporter
from unidiff.tasks.comparison import RUN_SOLVERS, SolverComparison
from unidiff.tasks.evaluation import EvaluationTask
from unidiff.tasks.evaluation_bits import likelihoods
from unidiff.tasks.generation import GenerationRun, generative

__all__ = ["SilentReporter", "measured"]

_DRAWN, _STATES, _ON_THE_WAY = 64, 12, 8  # samples, states of their path, and how many are shown on it
_PAIRS = 12
_NFE = (5, 10, 20, 50)  # evaluations that solvers are compared at
_LIKELIHOODS = 100  # test samples


class SilentReporter:
    """A reporter that says nothing; see `Reporter`."""

    def notice(self, text: str) -> None:
        """Nothing."""

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """Nothing."""


def measured(
    facts: RunFacts, run: Run, directory: Path, count: int, *, device: str, allow_imports: bool, reporter: Reporter
) -> RunFacts:
    """What the files of a run say, with all that they lack; a part that is not possible is a notice, here and there.

    Args:
        facts: What the files say.
        run: The run, loaded.
        directory: Where it is.
        count: Samples of the evaluation and of the comparison.
        device: Where models are loaded.
        allow_imports: Accept classes from outside unidiff in its recipe.
        reporter: Receives progress and notices.
    """
    content = dict(facts.content)
    notes: list[str] = []
    try:
        run = generative(run)
    except RecipeError as error:
        reporter.notice(f"Nothing is measured: {error}")
        return replace(facts, content={**content, "notes": [f"all that --full measures: {error}"]})

    def part(name: str, make: Callable[[], Any]) -> None:
        try:
            content[name] = json.loads(json.dumps(make()))
        except UnidiffError as error:
            notes.append(f"{name}: {error}")
            reporter.notice(notes[-1])

    def results(task: ResultsTask) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            outcome = task.run(Path(folder) / "results", reporter, device=device, allow_imports=allow_imports)
        return {name: value for name, value in outcome.content.items() if name not in ("environment", "recipe")}

    facts, x = _with_samples(facts, run, content, reporter)
    if "evaluation" not in content:
        part("evaluation", lambda: results(EvaluationTask(evaluate=(directory,), count=count)))
    if "comparison" not in content:
        task = SolverComparison(solvers=RUN_SOLVERS, nfe=_NFE, runs=(directory,), count=count)
        part("comparison", lambda: results(task))
    pairs: list[Pair] = []
    if x.ndim > 2:
        part("neighbours", lambda: _neighbours(run, x, pairs))
    if run.recipe.data.coded:
        notes.append("likelihood: this is a latent model, whose density is not the likelihood of images.")
    else:
        part("likelihood", lambda: _likelihood(run, reporter))
    return replace(facts, content={**content, "notes": notes}, pairs=pairs)


def _with_samples(
    facts: RunFacts, run: GenerationRun, content: dict[str, Any], reporter: Reporter
) -> tuple[RunFacts, Tensor]:
    """Samples as the recipe draws them, one by one and on their way; and these samples."""
    sampling = replace(run.recipe.sampling, count=_DRAWN)
    cond = run.conditioned(_DRAWN).in_turn(_DRAWN)
    solution = run.sample(
        sampling, keep=_STATES, progress=lambda done, total: reporter.progress("sample", done, total), **cond
    )
    conditioning, x = run.recipe.conditions(), solution.x.cpu()
    x = x if conditioning is None else conditioning.compose(x, cond)
    if x.ndim < 3:  # points and vectors are in the figures that the run has
        return facts, x
    content["samples"] = {"seeds": list(range(sampling.seed, sampling.seed + _DRAWN))}
    content["path"] = {"times": [state.t for state in solution.path]}
    states = [run.recipe.data.decode(state.u[:_ON_THE_WAY]) for state in solution.path]
    path = [image_bytes(image) for image in plot.path_images(states)]
    return replace(facts, tiles=_images(x), path=path), x


def _images(x: Tensor) -> list[bytes]:
    return [image_bytes(image) for image in plot.sample_images(x)]


def _neighbours(run: GenerationRun, x: Tensor, pairs: list[Pair]) -> dict[str, Any]:
    """The training samples that are nearest to samples, and their distances, as of images that were saved."""
    real = real_data(run.recipe.data, len(x))
    assert real.train is not None
    train = real.train

    def of(samples: Tensor) -> Any:
        return nearest(samples, map(as_saved, train.all_batches()))

    found, held_out = of(as_saved(x[:_PAIRS])), None
    if real.held_out is not None:
        held_out = float(of(torch.cat([*map(as_saved, real.held_out[0])])).distance.mean())
    others = train.batch(found.row)
    pairs += [Pair(*both) for both in zip(_images(x[:_PAIRS]), _images(others))]
    seed = run.recipe.sampling.seed
    rows = zip(found.row.tolist(), found.distance.tolist())
    listed = [{"seed": seed + number, "row": row, "distance": distance} for number, (row, distance) in enumerate(rows)]
    return {"pairs": listed, "held_out": held_out, "train": train.name}


def _likelihood(run: GenerationRun, reporter: Reporter) -> dict[str, Any]:
    flow, bound = likelihoods(run, _LIKELIHOODS, reporter)
    decoder, *between, prior = (float(term) for term in bound.terms.mean(0))
    content: dict[str, Any] = {"count": len(flow.log_prob)}
    for name, value in (("flow", flow), ("bound", bound)):
        numbers = {"nats": value.nats, "bits_per_dim": value.bits}
        content[name] = {unit: {"value": mean, "error": error} for unit, (mean, error) in numbers.items()}
    content["bound"] |= {"decoder": decoder, "steps": sum(between), "prior": prior}
    content["bound"]["terms"] = {"time": bound.times.tolist()[1:], "nats": between}
    return content
