"""The search of a sampler that is near a model's exact flow: fits of times and weights on training samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.evaluation.fit import GridCoordinates, RuleCoordinates, least_squares
from unidiff.grid import Grid
from unidiff.solver.base import Solver
from unidiff.solver.linear_multistep import multistep_weights
from unidiff.solver.spec import SolverSpec

__all__ = ["Samples", "Search", "tempered"]

_BEGUN = 3  # grids from which fits begin, each with the solver that is best on it
_BRIEF = 3  # iterations of those; the best is fitted on
_ITERATIONS = 8  # of its fit, with each loss
_SCREENED = 4  # of so many solvers on grids one is measured on all samples, those that are best on a part of them
_FEW = 15  # samples of that part, at least
_MEMORY = 3  # earlier values whose weights are fitted


class Samples:
    """Some samples of a model: their starts, and the ends of the exact flow."""

    def __init__(self, denoiser: Denoiser, start: Tensor, truth: Tensor, cond: dict[str, Tensor], batch: int) -> None:
        self.denoiser, self.start, self.truth, self.cond, self.batch = denoiser, start, truth, cond, batch

    def part(self, rows: slice) -> Samples:
        """Some of the samples."""
        cond = {name: value[rows] for name, value in self.cond.items()}
        return Samples(self.denoiser, self.start[rows], self.truth[rows], cond, self.batch)

    def residuals(self, solver: Solver, grid: Grid) -> Tensor:
        """The errors in pixels, flat, over the root of their number; NaN where solver or grid is not defined."""
        process = self.denoiser.process
        ends = []
        try:
            times = grid.times(process)
            for first in range(0, len(self.start), self.batch):
                rows = slice(first, first + self.batch)
                cond = {name: value[rows] for name, value in self.cond.items()}
                *_, last = solver.trajectory(self.denoiser, self.start[rows], times, torch.zeros_like, **cond)
                ends.append(process.basis.inverse(last.u).to("cpu", torch.float64))
        except ParameterError:
            return torch.full((self.truth.numel(),), math.nan, dtype=torch.float64)
        return (torch.cat(ends) - self.truth).flatten() / math.sqrt(self.truth.numel())

    def error(self, spec: SolverSpec) -> float:
        """The root mean square error over samples and dimensions; infinite if one is not finite."""
        error = float(self.residuals(spec.solver, spec.grid).norm())
        return error if math.isfinite(error) else math.inf

    def squares(self, spec: SolverSpec) -> Tensor:
        """The mean square error of each sample, (B,); infinite where it is not finite."""
        residuals = self.residuals(spec.solver, spec.grid).reshape(len(self.start), -1)
        return (residuals.square().sum(1) * len(self.start)).nan_to_num(math.inf, math.inf)


def tempered(residuals: Tensor, count: int, scale: float) -> Tensor:
    """Residuals of `count` samples, flat, those of each shortened from r to sqrt(scale log(1 + r^2 / scale)).

    A few samples of a mixture end in another component than their flow. Their errors are as large as the data and tell
    nothing of the times, but would be most of a sum of squares (the loss is that of Student's distribution, without its
    factors).
    """
    rows = residuals.reshape(count, -1)
    squares = rows.square().sum(1, keepdim=True) * count
    if scale == 0:
        return residuals
    factor = (scale * torch.log1p(squares / scale) / squares).sqrt()
    return (rows * torch.where(squares > 0, factor, 1.0)).flatten()


class Search:
    """The search for solver, grid and weights on training samples.

    Args:
        training: The samples.
        default: The default solver and grid, among which and what is found the result is chosen.
        starts: For each solver itself on the grids to begin with.
        nfe: Number of evaluations.
        dtype: Floating type of the states.
        progress: Called with (runs done, runs in all, at most).
    """

    def __init__(
        self,
        training: Samples,
        default: SolverSpec,
        starts: list[list[SolverSpec]],
        nfe: int,
        dtype: torch.dtype,
        progress: Callable[[int, int], None],
    ) -> None:
        fitted = 3 * len(training.start) // 4
        self.training, self.choosing = training.part(slice(0, fitted)), training.part(slice(fitted, None))
        self.process = training.denoiser.process
        self.default, self.starts, self.nfe = default, starts, nfe
        self.step = 1e-5 if dtype == torch.float64 else 3e-3  # well above the root of its rounding
        self.done, self.total, self.progress = 0, 0, progress

    def run(self, coefficients: bool) -> SolverSpec:
        """The best of what was found, on the samples that were kept from the fits."""
        every = [spec for own in self.starts for spec in own]
        self.total = len(every) + len(every) // _SCREENED + 3 * len(self.starts) + 4 * _BEGUN
        self.total += _BEGUN * _cost(self.nfe - 1, _BRIEF) + _cost(self.nfe - 1)
        self.total += _cost((_MEMORY + 1) * self.nfe) if coefficients else 0
        few = self._sorted(every, self.training.part(slice(0, max(_FEW, len(self.training.start) // _SCREENED))))
        best = self._sorted(few[: max(_BEGUN, len(few) // _SCREENED)])
        grids = list(dict.fromkeys(spec.grid for spec in best))[:_BEGUN]
        begun = [next(spec for spec in best if spec.grid == grid) for grid in grids]
        found = [*begun, *(fit for spec in begun for fit in self._with_times(spec, brief=True))]
        winner = self._sorted(found)[0]
        solvers = [replace(own[0], grid=self._like(winner.grid, own[0].grid)) for own in self.starts]
        found += self._with_times(self._sorted([winner, *solvers])[0])
        if coefficients:
            found += self._with_weights(self._sorted(found)[0])
        self._count(self.total)
        return self._sorted([*found, self.default], self.choosing)[0]

    def _like(self, grid: Grid, other: Grid) -> Grid:
        """A grid with as many steps as another one."""
        return grid.with_steps(len(other.times(self.process)) - 1) or grid

    def _count(self, done: int) -> None:
        self.done = min(done, self.total)
        self.progress(self.done, self.total)

    def _sorted(self, specs: list[SolverSpec], samples: Samples | None = None) -> list[SolverSpec]:
        """The best first, by the loss of `tempered` times the mean square, so that neither most nor few count alone."""
        squares = []
        for spec in specs:
            self._count(self.done + 1)
            squares.append((samples or self.training).squares(spec))
        scale = _scale(min(map(torch.median, squares)))
        losses = [float((torch.log1p(own / scale) if scale else own).mean() * own.mean()) for own in squares]
        return [specs[i] for i in sorted(range(len(specs)), key=lambda i: (losses[i], i))]

    def _with_times(self, spec: SolverSpec, *, brief: bool = False) -> list[SolverSpec]:
        """The solver on fitted times."""
        times = GridCoordinates(self.process, spec.grid.times(self.process))
        return self._fitted(lambda at: replace(spec, grid=times.grid(at)), times.size, brief=brief)

    def _with_weights(self, spec: SolverSpec) -> list[SolverSpec]:
        """The solver, or the default one if it is not a multistep rule, with fitted weights and times."""
        try:
            rule = multistep_weights(spec.solver, self.process, spec.grid.times(self.process))
        except ParameterError:
            spec = self.default
            rule = multistep_weights(spec.solver, self.process, spec.grid.times(self.process))
        times, weights = GridCoordinates(self.process, spec.grid.times(self.process)), RuleCoordinates(rule, _MEMORY)

        def at(parameters: Tensor) -> SolverSpec:
            return SolverSpec(weights.rule_of(parameters[times.size :]), times.grid(parameters[: times.size]))

        return self._fitted(at, times.size + weights.size)

    def _fitted(self, at: Callable[[Tensor], SolverSpec], size: int, *, brief: bool = False) -> list[SolverSpec]:
        """The samplers of parameters found from 0: with the loss of `tempered`, and from there with all squares.

        A brief fit has few iterations, with the first loss.
        """
        parameters, found = torch.zeros(size, dtype=torch.float64), []
        tempering = _scale(self.training.squares(at(parameters)).median())
        for scale in (tempering,) if brief else (tempering, 0.0):

            def residuals(parameters: Tensor, scale: float = scale) -> Tensor:
                try:
                    spec = at(parameters)
                except ParameterError:  # times that are not different
                    return torch.full((self.training.truth.numel(),), math.nan, dtype=torch.float64)
                own = self.training.residuals(spec.solver, spec.grid)
                return tempered(own, len(self.training.start), scale)

            iterations = _BRIEF if brief else _ITERATIONS
            parameters = least_squares(residuals, parameters, self.step, iterations, lambda: self._count(self.done + 1))
            found.append(at(parameters))
        return found


def _cost(size: int, iterations: int = 2 * _ITERATIONS) -> int:
    """Runs of a fit of so many parameters, at most as a rule."""
    return iterations * (min(size, 40) + 3)


def _scale(median: Tensor) -> float:
    """The scale of the loss: ten times the median square error; 0 where there is none."""
    return 10 * float(median) if bool(median.isfinite()) else 0.0
