"""Many solvers on one model, or the same on several: the same starts, counted evaluations, errors against the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unidiff.condition import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import require, require_whole
from unidiff.evaluation.budget import Planned, plan
from unidiff.evaluation.comparison import Comparison, Distances, Row
from unidiff.evaluation.compatibility import check_same_data, check_samples, one_shape
from unidiff.evaluation.distances import Target
from unidiff.evaluation.reference import Flow, reference_flow
from unidiff.evaluation.solver_spec import SolverSpec, solver_specs
from unidiff.grid import Grid, default_grid
from unidiff.noise import seeds_of
from unidiff.solver.base import Solver
from unidiff.solver.sample import sample

__all__ = ["compare"]

_SHOWN = 1000  # samples of each row that are kept for pictures
_TRUTH = 10  # true samples for each sample drawn, ...
_MOST_TRUTH = 10_000  # ... but no more than this
_TRUTH_SEED = 2**40  # of the true samples: no sample's own seed

Models = Denoiser | Sequence[tuple[str, Denoiser]]


class _Truth:
    """What samples are held against, in data space and in feature space."""

    def __init__(self, reference: Tensor | None, features: Callable[[Tensor], Tensor] | None) -> None:
        self._features = features if reference is not None else None
        self._target = None if reference is None else Target(reference)
        self._in_features = None if reference is None or features is None else Target(features(reference))

    def distances(self, x: Tensor) -> Distances:
        """Distances of samples, (N, *shape); none of samples that are not finite."""
        if self._target is None or not bool(x.isfinite().all()):
            return Distances()
        seen = None if self._features is None or self._in_features is None else self._features(x)
        features = None if seen is None or self._in_features is None else self._in_features.energy(seen)
        return Distances(self._target.energy(x), self._target.sliced(x), features)


def compare(
    models: Models,
    solvers: Solver | str | Sequence[Solver | tuple[Solver, Grid] | str],
    nfes: Sequence[int],
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 500,
    *,
    grid: Grid | None = None,
    reference_data: Tensor | None = None,
    fresh_data: Tensor | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    followed: int | None = None,
    tolerance: float = 1e-6,
    most_steps: int = 2048,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
    **cond: Tensor,
) -> Comparison:
    """Compare solvers at equal numbers of evaluations, from the same starts.

    For each solver and each requested number the largest number of steps is taken whose evaluations, as counted, do not
    exceed it. A solver that draws no noise is held against the true probability flow (`reference_flow`), every solver
    against the true distribution (`energy_distance`, `sliced_wasserstein`).

    Args:
        models: A denoiser, or (label, denoiser) for each of several. All must be of the same data:
            closed forms are held to it, of networks it cannot be known.
        solvers: Solvers, (solver, grid) pairs, or short texts such as "ddim", "ddim:0.5" or "ddim@uniform"; or one of
            them that is no pair.
        nfes: Requested numbers of evaluations.
        shape: Shape of one sample; the models' own if not given.
        seeds: One seed per sample; a number n stands for 0, ..., n - 1.
        grid: Grid of the solvers that name none; the default of the first model's process if not given.
        reference_data: Samples of the true distribution, (M, *shape), M at least 10. Not needed with a closed-form
            denoiser, whose own data are drawn.
        fresh_data: Other samples of it, measured for comparison as if a solver had drawn them.
        features: Maps samples (N, *shape) to features (N, F), in which the energy distance is measured too.
        followed: How many of the samples, the first, are held against the true flow; all if not given.
        tolerance: Of the true flow, above 0; see `reference_flow`.
        most_steps: Of the true flow; see `reference_flow`.
        dtype: Floating type of the states.
        device: Where the denoisers are.
        batch: Samples drawn together; bounds the memory.
        progress: Called with (runs done, runs in all).
        **cond: Conditions of all models, each with one row per sample: of the samples, of the true flow, and of the
            true samples of a closed form.

    Raises:
        ParameterError: If an argument is out of range or does not fit the others, a solver's name means nothing, the
            shape is not known, or nothing is left to compare.
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
    require(len(seeds) >= 20, "seeds", len(seeds), "at least 20 samples: distances need them")
    require(len(nfes) > 0, "nfe", nfes, "a list of at least one integer")
    for nfe in nfes:
        require_whole("nfe", nfe)
    require_whole("batch", batch)
    if followed is not None:
        require_whole("followed", followed)
    require_whole("most_steps", most_steps)
    require(0 < tolerance < math.inf, "tolerance", tolerance, "a number above 0")
    require(dtype.is_floating_point, "dtype", dtype, "a floating type, torch.float32 or torch.float64")
    check_samples("reference_data", reference_data, shape)
    check_samples("fresh_data", fresh_data, shape)
    known = solver_specs(solvers, grid or default_grid(labelled[0][1].process))
    require(len(known) > 0, "solvers", solvers, "a list of at least one solver")
    followed = len(seeds) if followed is None else min(followed, len(seeds))

    planned: list[tuple[str, Denoiser, Planned]] = []
    notes: list[str] = []
    for label, denoiser in labelled:
        for entrant in known:
            runs, note = plan(entrant, denoiser.process, shape, nfes)
            planned += [(label, denoiser, run) for run in runs]
            notes += [f"{label}: {note}" if label and note else note] if note else []
    require(len(planned) > 0, "solvers", solvers, f"one that can run. {' '.join(notes)}")
    exact = next((denoiser for _, denoiser in labelled if denoiser.closed_form), None)
    if reference_data is None and exact is not None:
        wanted = min(_TRUTH * len(seeds), _MOST_TRUTH)
        drawn = _draw(exact, wanted + len(seeds), shape, cond)
        reference_data, fresh_data = drawn[:wanted], drawn[wanted:]
    truth = _Truth(reference_data, features)
    baseline = Distances() if fresh_data is None else truth.distances(fresh_data)

    first = {name: value[:followed] for name, value in cond.items()}
    flows: dict[str, Flow] = {}
    rows = []
    for done, (label, denoiser, run) in enumerate(planned):
        if progress is not None:
            progress(done, len(planned))
        if run.deterministic and label not in flows:
            options = {"tolerance": tolerance, "most_steps": most_steps, "dtype": dtype, "device": device}
            flows[label] = reference_flow(denoiser, shape, seeds[:followed], batch=batch, **options, **first)  # type: ignore[arg-type]
        x, nfe, seconds = _run(run.entrant, denoiser, shape, seeds, batch, dtype, device, cond)
        if broken := int((~x.isfinite()).flatten(1).any(1).sum()):
            notes.append(f"{run.entrant.label} at {nfe} evaluations: {broken} of {len(x)} samples are not finite.")
        rms = None
        if run.deterministic:
            rms = float((x[:followed].double() - flows[label].x).square().mean().sqrt())
        rows.append(_row(label, run, nfe, seconds, rms, truth.distances(x), x[:_SHOWN], denoiser))
    if progress is not None:
        progress(len(planned), len(planned))
    errors = {label: flow.error for label, flow in flows.items()}
    ends = {label: flow.x[:_SHOWN] for label, flow in flows.items()}
    return Comparison(tuple(rows), len(seeds), followed, errors, baseline, tuple(notes), ends)


def _draw(exact: Denoiser, count: int, shape: Sequence[int], cond: Mapping[str, Tensor]) -> Tensor:
    """True samples, (count, *shape), under the conditions in turn."""
    generator = torch.Generator().manual_seed(_TRUTH_SEED)
    noise = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    place = next(exact.buffers()).device
    given = {name: value[torch.arange(count, device=value.device) % len(value)] for name, value in cond.items()}
    return exact.draw(noise.to(place), uniform.to(place), **given).cpu()


def _run(
    entrant: SolverSpec,
    denoiser: Denoiser,
    shape: Sequence[int],
    seeds: list[int],
    batch: int,
    dtype: torch.dtype,
    device: torch.device | str,
    cond: Mapping[str, Tensor],
) -> tuple[Tensor, int, float]:
    """The samples on the CPU, the evaluations of each (the most of any batch), and the seconds that all took."""
    begun = time.perf_counter()
    options: dict[str, Any] = {"dtype": dtype, "device": device, "batch": batch, **cond}
    solution = sample(denoiser, entrant.solver, entrant.grid, shape, seeds, **options)
    x = solution.x.cpu()  # waits for the device
    return x, solution.nfe, time.perf_counter() - begun


def _row(
    label: str,
    run: Planned,
    nfe: int,
    seconds: float,
    rms: float | None,
    distances: Distances,
    x: Tensor,
    denoiser: Denoiser,
) -> Row:
    solver, grid = run.entrant.solver, run.entrant.grid
    steps = len(grid.times(denoiser.process)) - 1
    names = {"model": label, "label": run.entrant.label, "solver": repr(solver), "grid": repr(grid)}
    rms = math.inf if rms is not None and math.isnan(rms) else rms
    return Row(
        **names,
        steps=steps,
        requested=run.requested,
        nfe=nfe,
        seconds=round(seconds, 4),
        deterministic=run.deterministic,
        rms=rms,
        distances=distances,
        x=x,
    )
