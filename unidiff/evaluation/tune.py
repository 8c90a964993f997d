"""Solver, times and weights fitted to a model: nearer to its exact flow at the same number of evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.budget import plan
from unidiff.evaluation.compatibility import one_shape
from unidiff.evaluation.reference import reference_flow
from unidiff.evaluation.search import Samples, Search
from unidiff.evaluation.tuning import Tuning, TuningRow
from unidiff.fixed_grid import FixedGrid
from unidiff.grid import Grid, Karras, LogSNR, Power, Tapered, Uniform, default_grid
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Seeded, seeds_of
from unidiff.process.base import Process, require_one_snr
from unidiff.solver.adams import DEIS, LogRhoDEIS
from unidiff.solver.base import Solver
from unidiff.solver.ddim import DDIM
from unidiff.solver.dpm import DPMSolver
from unidiff.solver.exponential_adams import ExponentialAdams
from unidiff.solver.pndm import PLMS
from unidiff.solver.request import check_request
from unidiff.solver.sample import DEFAULT_SOLVER
from unidiff.solver.spec import SolverSpec, solver_specs
from unidiff.solver.unipc import UniPC
from unidiff.solver.unipc_noise import UniPCNoise

__all__ = ["tune"]

# What is tried where no solvers are named: every family of multistep methods, at its usual orders.
_SOLVERS: tuple[Solver, ...] = (
    *(ExponentialAdams(order) for order in (4, 2, 3, 5)),
    *(UniPC(2), UniPC(3), UniPC(2, published_orders=True), UniPCNoise(2)),
    *(DEIS(2), DEIS(3), LogRhoDEIS(3), DPMSolver(2), PLMS(), DDIM()),
)
_FEWEST = 20  # samples
_MOST_CLASSES = 20  # of the table


@plain_arguments
@enough_memory(LOWER_BATCH)
@torch.no_grad()
def tune(
    denoiser: Denoiser,
    nfe: int,
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 256,
    held_out: int | Sequence[int] | None = None,
    *,
    solvers: Solver | str | Sequence[Solver | tuple[Solver, Grid] | str] | None = None,
    coefficients: bool = False,
    others: Sequence[tuple[str, Denoiser]] = (),
    tolerance: float = 1e-6,
    most_steps: int = 2048,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Callable[[int, int], None] | bool | None = None,
    **cond: Tensor,
) -> Tuning:
    """Fit a solver and its times to a model, at a number of evaluations, and judge them on seeds that were not used.

    All that is fitted is measured by the distance from the exact flow (`reference_flow`) of the same starts. Every
    solver is tried on several grids. On the best three grids, each with its best solver, the times are fitted briefly,
    by nonlinear least squares over the increments of the default grid's variable, a function of log SNR; then the
    solver is chosen again on the best times, and they are fitted on.
    With `coefficients` the weights of the resulting multistep rule and the times are fitted together; the weights of
    each step sum to 1 (`LinearMultistep`). A quarter of the seeds is kept from the fits and chooses between their
    results. Where the choice is not better than the default on the held-out seeds, the default is the result.

    Args:
        denoiser: The model.
        nfe: Number of evaluations, at least 3.
        shape: Shape of one sample; the model's own by default.
        seeds: Seeds to fit to, one per sample, at least 20; a number n stands for 0, ..., n - 1.
        held_out: Seeds to judge by, none of `seeds`, at least 20; by default as many, those that follow the largest.
        solvers: Deterministic solvers to choose from, as for `compare`, one with a grid begins with it; by default
            every family of multistep methods.
        coefficients: Whether to fit the weights of a multistep rule too. They are for this number of steps alone.
        others: (label, denoiser) of other models of samples of the same shape, such as this one under another guidance
            scale: the result is judged on them too.
        tolerance: Of the exact flow; see `reference_flow`.
        most_steps: Of the exact flow; see `reference_flow`.
        dtype: Floating type of the states.
        device: Where the models are.
        batch: Samples drawn together; bounds the memory.
        progress: Called with (runs done, runs in all, at most).
        **cond: Conditions of all models, each with a row for each of `seeds`, then one for each of `held_out`.

    Raises:
        ParameterError: If an argument is out of range or does not fit the others, before the model is evaluated.
    """
    labelled = [("", denoiser), *others]
    shape, fitted = one_shape(labelled, shape), list(seeds_of(seeds))
    judged = list(seeds_of(range(max(fitted) + 1, max(fitted) + 1 + len(fitted)) if held_out is None else held_out))
    for name, value, least in (("nfe", nfe, 3), ("batch", batch, 1), ("most_steps", most_steps, 1)):
        require_whole(name, value, least, 1_000_000)
    for name, own in (("seeds", fitted), ("held_out", judged)):
        require(len(own) >= _FEWEST, name, len(own), f"at least {_FEWEST} samples")
    require(not {*fitted} & {*judged}, "held_out", sorted({*fitted} & {*judged}), "seeds that are not among `seeds`")
    require(0 < tolerance < math.inf, "tolerance", tolerance, "a number > 0")
    every = [*fitted, *judged]
    for _, model in labelled:
        cond = check_conditions(cond, model, len(every), device)
        check_request(model, shape, every, cond, device, dtype, batch)
    if coefficients:
        remedy = "Leave the coefficients out."
        require_one_snr(denoiser.process, "coefficients", "weights for all modes need one SNR", remedy)
    starts = _candidates(denoiser, shape, nfe, _SOLVERS if solvers is None else solvers, default=solvers is None)

    def samples(model: Denoiser, rows: slice) -> Samples:
        own = {name: value[rows] for name, value in cond.items()}
        options: dict[str, Any] = {"dtype": dtype, "device": device, "batch": batch, **own}
        flow = reference_flow(model, shape, every[rows], tolerance=tolerance, most_steps=most_steps, **options)
        like = torch.empty(len(every[rows]), *shape, dtype=dtype, device=device)
        return Samples(model, model.process.start(Seeded(every[rows]), like), flow.x, own, batch)

    training, held = samples(denoiser, slice(0, len(fitted))), samples(denoiser, slice(len(fitted), None))
    default = SolverSpec(DEFAULT_SOLVER, default_grid(denoiser.process, nfe))
    search = Search(
        training, default, starts, nfe, dtype, progress if callable(progress) else (lambda done, total: None)
    )
    tuned = search.run(coefficients)
    gained = held.error(tuned) < held.error(default)
    notes = () if gained or tuned == default else (f"{tuned.label} is not better on the held-out seeds.",)
    tuned = tuned if gained else default
    rows = [*_neighbours(held, tuned, nfe), *_classes(held, default, tuned, nfe)]
    for label, model in others:
        other = samples(model, slice(len(fitted), None))
        rows.append(TuningRow(label, nfe, other.error(default), other.error(tuned)))
    return Tuning(
        solver=tuned.solver,
        grid=tuned.grid,
        nfe=nfe,
        error=held.error(tuned),
        default_error=held.error(default),
        training_error=training.error(tuned),
        rows=tuple(rows),
        count=len(judged),
        notes=notes,
    )


def _candidates(
    denoiser: Denoiser, shape: Sequence[int], nfe: int, solvers: Any, *, default: bool
) -> list[list[SolverSpec]]:
    """For each solver itself on the grids that a fit may begin with, with the steps that the evaluations buy.

    Raises:
        ParameterError: If a solver that was named draws noise or has no number of steps, or none is defined.
    """
    process = denoiser.process
    usual = default_grid(process)
    grids = (usual, Tapered(low=0.1), LogSNR(), Karras(), Uniform(), Power(rho=1.5), Power())
    ends = (usual, Uniform())
    found, problems = [], []
    for spec in solver_specs(solvers, usual):
        steps = nfe  # of the multistep methods that are tried by default
        if not default:
            planned, note = plan(spec, process, shape, [nfe])
            problems += [note] if note else []
            if not planned:
                continue
            if planned[0].requested is None or not planned[0].deterministic:
                wanted = "solvers that draw no noise, on grids with a number of steps"
                raise ParameterError("solvers", f"must be {wanted}, got {spec.label}")
            steps = len(planned[0].spec.grid.times(process)) - 1
        if steps <= 2:
            problems.append(f"{spec.label} takes {steps} steps in {nfe} evaluations; 3 or more can be tuned.")
            continue
        own = []
        starts = [grid.with_steps(steps) for grid in (grids if spec.grid == usual else (spec.grid,))]
        for start in [*starts, *(_without_last(grid, process, steps) for grid in ends if spec.grid == usual)]:
            with suppress(ParameterError):
                if start is not None:
                    start.check(process)
                    spec.solver.check(process)
                    own.append(replace(spec, grid=start))
        found += [own] if own else []
    if not found:
        problem = " ".join(problems) or f"none of them is defined on {process!r}."
        raise ParameterError("solvers", f"{problem} Name others, or raise nfe.")
    return found


def _without_last(grid: Grid, process: Process, steps: int) -> Grid | None:
    """The grid with one step more, but without t_min: at few steps little is left to be done there."""
    longer = grid.with_steps(steps + 1)
    if longer is None:
        return None
    *interior, last = longer.times(process)[1:-2].tolist()
    return FixedGrid(tuple(interior), last=last)


def _neighbours(held: Samples, tuned: SolverSpec, nfe: int) -> list[TuningRow]:
    """The errors at this and at other numbers of evaluations."""
    process, shape, rows = held.denoiser.process, held.truth.shape[1:], []
    around = sorted({max(3, nfe // 2), max(3, nfe - 1), nfe, nfe + 1, 2 * nfe})
    runs = {run.requested: run.spec for run in plan(tuned, process, shape, around)[0]}
    for other in around:
        spec = tuned if other == nfe else runs.get(other)
        default = SolverSpec(DEFAULT_SOLVER, default_grid(process, other))
        rows.append(TuningRow("", other, held.error(default), None if spec is None else held.error(spec)))
    return rows


def _classes(held: Samples, default: SolverSpec, tuned: SolverSpec, nfe: int) -> list[TuningRow]:
    """The errors of each class, where the samples have classes."""
    label = held.cond.get("label")
    classes = [] if label is None else label.unique().tolist()
    if not 1 < len(classes) <= _MOST_CLASSES:
        return []
    assert label is not None
    both = [held.residuals(spec.solver, spec.grid).reshape(len(label), -1) for spec in (default, tuned)]
    scale = math.sqrt(len(label))
    rows = []
    for k in classes:
        of_class = (label == k).cpu()
        errors = [float(r[of_class].norm()) * scale / math.sqrt(int(of_class.sum())) for r in both]
        rows.append(TuningRow(f"class {k}", nfe, *errors))
    return rows
