"""A sampler fitted to the model of a run; see `unidiff.tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from unidiff.denoiser import Denoiser
from unidiff.evaluation.tune import tune
from unidiff.evaluation.tuning import Tuning
from unidiff.tasks.generation import Conditioned, GenerationRun

__all__ = ["tune_run"]

# As for `unidiff compare`: a network is rough in time, and its flow is known no better.
_TOLERANCE, _MOST_STEPS = 1e-3, 128


def tune_run(
    run: GenerationRun,
    model: Conditioned,
    nfe: int,
    *,
    solvers: Sequence[str] | None,
    coefficients: bool,
    others: Sequence[tuple[str, Denoiser]],
    count: int,
    seed: int,
    batch: int,
    progress: Callable[[int, int], None],
) -> Tuning:
    """Fit to `count` samples from `seed`, and judge on as many that follow, their conditions in turn."""
    denoiser = run.recipe.sampling.accelerated(model.denoiser)
    cond: dict[str, Any] = model.in_turn(2 * count)
    return tune(
        denoiser,
        nfe,
        run.recipe.data.shape,
        range(seed, seed + count),
        range(seed + count, seed + 2 * count),
        solvers=solvers,
        coefficients=coefficients,
        others=others,
        tolerance=_TOLERANCE,
        most_steps=_MOST_STEPS,
        dtype=torch.float32,
        device=next(run.model.parameters()).device,
        batch=batch,
        progress=progress,
        **cond,
    )
