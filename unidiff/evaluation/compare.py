"""Solvers compared on one or several models: the same starts, counted evaluations, errors against references."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.evaluation.budget import Planned, plan, plan_steps
from unidiff.evaluation.comparison import Comparison, Distances, Row
from unidiff.evaluation.compatibility import check_same_data, check_samples, draw_data, one_shape
from unidiff.evaluation.conditional import rms
from unidiff.evaluation.distances import Target
from unidiff.evaluation.reference import Flow, reference_flow
from unidiff.grid import Grid
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import generator_of, seeds_of
from unidiff.solver.base import Solver
from unidiff.solver.finite import not_finite
from unidiff.solver.sample import draw_samples
from unidiff.solver.spec import grid_for, solver_specs
from unidiff.text import count_of

__all__ = ["compare", "planned"]

_KEPT = 1000  # samples of each row that are kept for figures
_REFERENCE = 10  # reference samples per sample, ...
_MOST_REFERENCE = 10_000  # ... but no more than this
_REFERENCE_SEED = 2**40  # of the reference samples: beyond the seeds of samples in use

Models = Denoiser | Sequence[tuple[str, Denoiser]]


@plain_arguments
@enough_memory(LOWER_BATCH)
def compare(
    models: Models,
    solvers: Solver | str | Sequence[Solver | tuple[Solver, Grid] | str],
    nfes: Sequence[int] = (),
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 500,
    *,
    steps: Sequence[int] = (),
    grid: Grid | str | int | None = None,
    reference_data: Tensor | None = None,
    fresh_data: Tensor | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    followed: int | None = None,
    tolerance: float = 1e-6,
    most_steps: int = 2048,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Callable[[int, int], None] | bool | None = None,
    flow_progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Comparison:
    """Compare solvers at equal numbers of evaluations, or of steps, from the same starts.

    For each solver and each requested number the largest number of steps is taken whose evaluations, as counted, do not
    exceed it. Solvers that draw no noise are compared with the exact probability flow (`reference_flow`), all solvers
    with the data distribution (`energy_distance`, `sliced_wasserstein`).

    Args:
        models: A denoiser, or (label, denoiser) for each of several, all of the same data: an error for closed forms of
            different data, not checked for networks.
        solvers: Solvers, (solver, grid) pairs, or texts such as "ddim", "ddim:0.5" or "ddim@uniform"; or a single
            solver or text.
        nfes: Requested numbers of evaluations; or `steps`.
        shape: Shape of one sample; the models' own by default.
        seeds: One seed per sample, at least 20; a number n stands for 0, ..., n - 1.
        steps: Numbers of steps of the grids, in place of `nfes`: a step of some solvers takes several evaluations.
        grid: Default grid of the solvers; that of the first model's process by default.
        reference_data: Samples of the data distribution, (M, *shape), M at least 10; by default drawn from the first
            closed-form denoiser, if there is one.
        fresh_data: Other samples of it, measured as if a solver had drawn them: what perfect samples score.
        features: Maps samples (N, *shape) to features (N, F), in which the energy distance is measured too.
        followed: How many of the samples, the first, are compared with the exact flow; all by default.
        tolerance: Of the exact flow, above 0; see `reference_flow`.
        most_steps: Of the exact flow; see `reference_flow`.
        dtype: Floating type of the states.
        device: Where the denoisers are.
        batch: Samples drawn together; bounds the memory.
        progress: Called with (runs done, runs in all).
        flow_progress: Called with (steps done, steps in all at most) of the exact flow, before the runs.
        **cond: Conditions of all models, each with one row per sample; reference samples of a closed form take them in
            turn.

    Raises:
        ParameterError: If an argument is out of range or does not fit the others, a solver's name is unknown, the shape
            is unknown, or no solver can run.
    """
    labelled = [("", models)] if isinstance(models, Denoiser) else list(models)
    require(len(labelled) > 0, "models", models, "a denoiser, or at least one (label, denoiser)")
    labels = [label for label, _ in labelled]
    require(len(set(labels)) == len(labels), "models", labels, "one label for each model, all different")
    shape = one_shape(labelled, shape)
    check_same_data(labelled)
    seeds = list(seeds_of(seeds))
    for _, denoiser in labelled:
        cond = check_conditions(cond, denoiser, len(seeds), device)
    require(len(seeds) >= 20, "seeds", len(seeds), "at least 20 samples, which the distances need")
    require(len(nfes) > 0 or len(steps) > 0, "nfe", nfes, "a list of at least one integer")
    require(not (len(nfes) and len(steps)), "steps", steps, "empty where `nfes` are given")
    followed = len(seeds) if followed is None else followed
    integers = [("batch", batch), ("followed", followed), ("most_steps", most_steps)]
    for name, value in [*(("nfe", nfe) for nfe in nfes), *(("steps", n) for n in steps), *integers]:
        require_whole(name, value)
    require(0 < tolerance < math.inf, "tolerance", tolerance, "a number > 0")
    require(dtype.is_floating_point, "dtype", dtype, "a floating type, torch.float32 or torch.float64")
    check_samples("reference_data", reference_data, shape)
    check_samples("fresh_data", fresh_data, shape)
    every, notes = planned(labelled, solvers, nfes, shape, grid, steps)
    followed = min(followed, len(seeds))
    exact = next((denoiser for _, denoiser in labelled if denoiser.closed_form), None)
    if reference_data is None and exact is not None:
        count = min(_REFERENCE * len(seeds), _MOST_REFERENCE)
        data = draw_data(exact, count + len(seeds), generator_of(_REFERENCE_SEED), cond)
        reference_data, fresh_data = data[:count], data[count:]
    distances = _distances_to(reference_data, features)
    baseline = Distances() if fresh_data is None else distances(fresh_data)

    first = {name: value[:followed] for name, value in cond.items()}
    options: dict[str, Any] = {"dtype": dtype, "device": device, "batch": batch, **cond}
    flow_options: dict[str, Any] = {**options, **first, "tolerance": tolerance, "most_steps": most_steps}
    flows: dict[str, Flow] = {}
    rows = []
    for label, denoiser, run in every:  # first of all, so that what is left of the runs is told by runs alone
        if run.deterministic and label not in flows:
            flows[label] = reference_flow(denoiser, shape, seeds[:followed], progress=flow_progress, **flow_options)
    for done, (label, denoiser, run) in enumerate(every):
        if callable(progress):
            progress(done, len(every))
        begun, spec = time.perf_counter(), run.spec
        solution = draw_samples(denoiser, spec.solver, spec.grid, shape, seeds, **options)
        x = solution.x.cpu()  # waits for the device
        seconds = round(time.perf_counter() - begun, 4)
        if (problem := not_finite(x)) is not None:
            notes.append(f"{spec.label} at {count_of(solution.nfe, 'evaluation')}: {problem}")
        error = rms(x[:followed], flows[label].x) if run.deterministic else None
        row = Row(
            model=label,
            label=spec.label,
            solver=repr(spec.solver),
            grid=repr(spec.grid),
            steps=len(solution.times) - 1,
            requested=run.requested,
            nfe=solution.nfe,
            seconds=seconds,
            deterministic=run.deterministic,
            rms=math.inf if error is not None and math.isnan(error) else error,
            distances=distances(x),
            x=x[:_KEPT],
        )
        rows.append(row)
    if callable(progress):
        progress(len(every), len(every))
    errors = {label: flow.error for label, flow in flows.items()}
    ends = {label: flow.x[:_KEPT] for label, flow in flows.items()}
    return Comparison(tuple(rows), len(seeds), followed, errors, baseline, tuple(notes), ends)


def planned(
    models: Sequence[tuple[str, Denoiser]],
    solvers: Any,
    nfes: Sequence[int],
    shape: Sequence[int],
    grid: Grid | str | int | None,
    steps: Sequence[int] = (),
) -> tuple[list[tuple[str, Denoiser, Planned]], list[str]]:
    """What `compare` runs with these arguments, and notes about solvers that cannot run.

    Raises:
        ParameterError: If no solver can.
    """
    specs = solver_specs(solvers, grid_for(models[0][1].process, grid))
    require(len(specs) > 0, "solvers", solvers, "a list of at least one solver")
    every: list[tuple[str, Denoiser, Planned]] = []
    notes: list[str] = []
    for label, denoiser in models:
        for spec in specs:
            own = spec, denoiser.process, shape
            runs, note = plan_steps(*own, steps) if steps else plan(*own, nfes)
            every += [(label, denoiser, run) for run in runs]
            notes += [f"{label}: {note}" if label and note else note] if note else []
    require(len(every) > 0, "solvers", solvers, f"one that can run. {' '.join(notes)}")
    return every, notes


def _distances_to(
    reference: Tensor | None, features: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Distances]:
    """The function that measures samples, (N, *shape), against a reference, in data space and in feature space."""
    target = None if reference is None else Target(reference)
    in_features = None if reference is None or features is None else Target(features(reference))

    def distances(x: Tensor) -> Distances:
        if target is None or not bool(x.isfinite().all()):
            return Distances()
        mapped = None if in_features is None or features is None else in_features.energy(features(x))
        return Distances(target.energy(x), target.sliced(x), mapped)

    return distances
