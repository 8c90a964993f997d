"""The bits/dim of a run on test data, by the probability flow and by the variational bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from unidiff.divergence import Hutchinson
from unidiff.errors import ParameterError, RunError
from unidiff.evaluation.distances import Estimate
from unidiff.grid import Native, Uniform
from unidiff.likelihood import Likelihood, check_data, log_likelihood
from unidiff.run.task import Reporter
from unidiff.tasks.generation import GenerationRun
from unidiff.variational import Bound, variational_bound

if TYPE_CHECKING:
    from unidiff.tasks.evaluation import EvaluationTask

__all__ = ["bits_per_dim", "likelihoods"]


def bits_per_dim(run: GenerationRun, task: EvaluationTask, reporter: Reporter) -> dict[str, Estimate]:
    """Both numbers with their standard errors; see `likelihoods`."""
    flow, bound = likelihoods(run, task.bits, reporter, seed=task.seed, batch=task.batch)
    return {"bits_flow": Estimate(*flow.bits), "bits_bound": Estimate(*bound.bits)}


def likelihoods(
    run: GenerationRun, count: int, reporter: Reporter, *, seed: int = 0, batch: int = 250
) -> tuple[Likelihood, Bound]:
    """Flow and bound of the first test samples, as `unidiff likelihood --bound` computes them, in float32.

    Raises:
        RunError: If the pixels of its data are not of 8 bits.
    """
    source, denoiser = run.recipe.data.open("test"), run.denoiser
    rows = torch.arange(min(count, len(source)))
    x = source.batch(rows, next(denoiser.parameters()).device)
    levels = 256 if x.ndim > 3 else None
    try:
        check_data(x, levels)
    except ParameterError as error:
        if error.parameter != "levels":
            raise
        problem = "the data have values other than 256 levels"
        raise RunError(f"bits: {problem}. Use `unidiff likelihood {run.directory} --levels N`.") from error
    cond = {} if run.recipe.conditions() is None else run.own_conditions(source, rows).cond
    options: dict[str, Any] = {
        "levels": levels,
        "seeds": range(seed, seed + len(rows)),
        "batch": batch,
        **cond,
    }
    grid = Uniform(1000) if denoiser.process.native_times() is None else Native()
    flow = log_likelihood(
        denoiser, x, Hutchinson(1), progress=lambda done, total: reporter.progress("flow", done, total), **options
    )
    bound = variational_bound(
        denoiser, x, grid, progress=lambda done, total: reporter.progress("bound", done, total), **options
    )
    return flow, bound
