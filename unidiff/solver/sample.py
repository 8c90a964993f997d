"""Drawing samples: noise at t = 1, carried to the data by a solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from unidiff.acceleration import Acceleration
from unidiff.arguments import PlainArguments, plain_arguments
from unidiff.batching import Progress, batches
from unidiff.denoiser import Counted, Denoiser
from unidiff.display import Pictured
from unidiff.errors import ParameterError, require, require_whole
from unidiff.grid import Grid, default_grid
from unidiff.memory import LOWER_BATCH, enough_memory, keep_freed_memory
from unidiff.noise import Seeded
from unidiff.prediction import Prediction
from unidiff.process.base import Process
from unidiff.process.level import Level
from unidiff.solver.base import Solver, State
from unidiff.solver.exponential_adams import ExponentialAdams
from unidiff.solver.finite import warn_if_not_finite
from unidiff.solver.gradients import optional_gradients
from unidiff.solver.request import check_request
from unidiff.solver.spec import SolverSpec, named, solver_and_grid
from unidiff.words import how_drawn

__all__ = ["DEFAULT_SOLVER", "Sampling", "Solution", "draw_samples", "sample"]

# The default on every process, with `default_grid`: chosen by benchmarks/solvers.py.
DEFAULT_SOLVER: Solver = ExponentialAdams()


@dataclass(frozen=True, repr=False)
class Solution(Pictured):
    """The result of a sampling run.

    Attributes:
        x: Samples in pixels, (B, *shape).
        times: The grid, (N + 1,), float64.
        nfe: Evaluations of the denoiser per sample, counted; the most of any batch.
        path: States along the run, u in pixels, (B, *shape), from t = 1 to 0; empty unless `keep` is set.
    """

    x: Tensor
    times: Tensor
    nfe: int
    path: tuple[State, ...] = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The samples, as `np.asarray(solution)` asks for them."""
        array = self.x.detach().cpu().numpy()
        return array.astype(dtype or array.dtype, copy=bool(copy))

    def in_short(self) -> dict[str, Any]:
        """See `Displayed.in_short`."""
        said = {"samples": len(self.x), "shape": tuple(self.x.shape[1:]), "steps": len(self.times) - 1, "nfe": self.nfe}
        return said | ({"path": f"{len(self.path)} states"} if self.path else {})


@dataclass(frozen=True)
class Sampling(PlainArguments):
    """How a recipe draws samples: its `sampling` section.

    Args:
        solver: The method.
        grid: The times; null is Tapered(50), or ArcLength(50) for a process whose modes differ in SNR.
        count: Number of samples, at least 1.
        batch: Samples drawn together; bounds the memory, changes no sample. At least 1.
        seed: Seed of the first sample; sample i has seed + i. At least 0.
        acceleration: How the network is executed: Compiled, CudaGraphs or FeatureCache; null for layer by layer.
    """

    solver: Solver = DEFAULT_SOLVER
    grid: Grid | None = None
    count: int = 64
    batch: int = 256
    seed: int = 0
    acceleration: Acceleration | None = None

    def __post_init__(self) -> None:
        if isinstance(self.solver, str):  # in Python; in a recipe it is read as a `type`
            solver, grid = named(self.solver)
            object.__setattr__(self, "solver", solver)
            if grid is not None:
                require(self.grid is None, "grid", self.grid, "None, since the solver's name has a grid")
                object.__setattr__(self, "grid", grid)
        require_whole("count", self.count, 1, 10_000_000)
        require_whole("batch", self.batch, 1, 10_000_000)
        require_whole("seed", self.seed, 0, 2**62)

    def grid_for(self, process: Process) -> Grid:
        """The grid, or the default one of this process."""
        return self.grid or default_grid(process)

    def in_words(self, process: Process) -> str:
        """Solver, grid and seeds for a caption, such as "DDIM, on the Tapered grid of 50 steps; seeds from 0"."""
        grid = self.grid_for(process)
        return how_drawn(self.solver, grid, len(grid.times(process)) - 1, self.seed)

    def drawn_with(self, process: Process, solver: str | None, steps: int | None) -> Sampling:
        """With another solver, as for `SolverSpec.of`, or number of steps; one that names no grid keeps this one.

        Raises:
            ParameterError: If the text names no solver, or the grid has a number of steps of its own.
        """
        own = self.grid_for(process)
        spec = SolverSpec(self.solver, own) if solver is None else SolverSpec.of(solver, own)
        if steps is not None:
            if spec.grid is not own and spec.grid.with_steps(steps) is None:
                raise ParameterError("steps", f"{spec.grid!r} has a number of steps of its own. Leave --steps out.")
            spec = spec.with_steps(steps)
        return replace(self, solver=spec.solver, grid=self.grid if spec.grid is own else spec.grid)

    def accelerated(self, denoiser: Denoiser) -> Denoiser:
        """The model, with its networks executed as `acceleration` says; on a CPU freed memory is kept."""
        if all(weight.device.type == "cpu" for weight in denoiser.parameters()):
            keep_freed_memory()
        return denoiser if self.acceleration is None else self.acceleration.apply(denoiser)

    def check(self, process: Process) -> None:
        """Raise a ParameterError for a process on which the solver or the grid is not defined."""
        self.grid_for(process).check(process)
        self.solver.check(process)


@plain_arguments
def sample(
    denoiser: Denoiser,
    solver: Solver | str = DEFAULT_SOLVER,
    grid: Grid | str | int | None = None,
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    keep: int = 0,
    grad: bool = False,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> Solution:
    """Draw samples: noise at t = 1, carried to t = 0 by the solver.

    Args:
        denoiser: The model.
        solver: The method, or its name: "ddim", "ddim:0.5" (the first number, here eta), "ddim:0.5@karras" (and grid).
        grid: The times, the name of a grid, or a number of steps; Tapered(50) if not given, or ArcLength(50) where the
            modes differ in SNR.
        shape: Shape of one sample, without the batch axis; the model's own if not given.
        seeds: One seed per sample; a number n stands for 0, ..., n - 1. A sample depends on its own seed alone.
        dtype: Floating type of the state.
        device: Where the state lives; the denoiser must be there too.
        batch: Samples drawn together; all of them if not given. It bounds the memory and changes no sample, but for a
            solver that adapts its steps to the batch, which then changes within its tolerance.
        keep: States of the run to keep, of the first batch, spread evenly over the grid, first and last included; 0 for
            none.
        grad: Whether samples can be differentiated, in the model's parameters, the conditions and any other tensor
            that the model depends on; the noise of a seed is constant. The memory is then that of all steps
            together, each as much as one step of training. A solver that adapts its steps is differentiated with
            these steps held fixed.
        progress: Called with (steps done, steps in all) after each step, over all batches; True draws a bar.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If the grid or the solver is not defined on the process, or the model does not have the
            conditions, or needs one that is missing, or gradients are asked for that do not exist.

    Warns:
        UserWarning: If samples hold NaN or infinity; it names them.
    """
    options: dict[str, Any] = {"dtype": dtype, "device": device, "batch": batch, "keep": keep, "grad": grad}
    solution = draw_samples(denoiser, solver, grid, shape, seeds, **{**options, "progress": progress, **cond})
    warn_if_not_finite(solution.x)
    return solution


@plain_arguments
@enough_memory(LOWER_BATCH)
@optional_gradients
def draw_samples(
    denoiser: Denoiser,
    solver: Solver | str = DEFAULT_SOLVER,
    grid: Grid | str | int | None = None,
    shape: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch: int | None = None,
    keep: int = 0,
    grad: bool = False,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> Solution:
    """As `sample`, without its warning: for callers that report samples that are not finite themselves."""
    process = denoiser.process
    solver, grid = solver_and_grid(process, solver, grid)
    times = grid.times(process)
    shape, seeds, cond = check_request(denoiser, shape, seeds, cond, device, dtype, batch)
    require_whole("keep", keep, 0)
    steps = len(times) - 1
    keep = min(keep, steps + 1)
    kept = {round(i * steps / max(1, keep - 1)) for i in range(keep)}
    path: list[State] = []
    samples, nfe = [], 0
    for part in batches(seeds, batch, cond, progress):
        noise, counted = Seeded(part.seeds), _CountedInRun(denoiser)
        u = process.start(noise, torch.empty(len(part.seeds), *shape, dtype=dtype, device=device))
        for done, state in enumerate(solver.trajectory(counted, u, times, noise, **part.cond)):
            u = state.u
            if done in kept and part.rows.start == 0:
                path.append(State(state.t, process.basis.inverse(u).to(dtype)))
            if done > 0:
                part.progress(done, steps)
        samples.append(process.basis.inverse(u).to(dtype))
        nfe = max(nfe, counted.nfe)
    return Solution(torch.cat(samples), times, nfe, tuple(path))


class _CountedInRun(Counted):
    """A counter of a run alone: where there are no hooks it costs next to nothing."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        # In a tuple, since a module among its attributes would be its child.
        self._called = (denoiser,)
        self._hooks = (
            denoiser._forward_hooks,
            denoiser._forward_pre_hooks,
            denoiser._backward_hooks,
            denoiser._backward_pre_hooks,
        )
        self._plain = type(denoiser).__call__ is nn.Module.__call__ and denoiser._compiled_call_impl is None

    def __call__(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        self._calls[0] += 1
        (denoiser,) = self._called
        # What a module does when it is called is `forward`, unless something is hooked to the call.
        plain = self._plain and not any(self._hooks) and not _has_any_global_hook()
        return denoiser.forward(u, level, **cond) if plain else denoiser(u, level, **cond)
