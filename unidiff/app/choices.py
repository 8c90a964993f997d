"""What can be chosen: the solvers and the grids that a process allows."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import torch

import unidiff
from unidiff.errors import ParameterError
from unidiff.evaluation.budget import probe
from unidiff.grid import Grid, default_grid
from unidiff.process.base import Process
from unidiff.solver.base import Solver
from unidiff.solver.sample import DEFAULT_SOLVER
from unidiff.solver.spec import SolverSpec

__all__ = ["DEFAULT", "DEFAULT_METHOD", "Method", "draws_noise", "eta_of", "grids", "solvers"]

DEFAULT = "default"  # the grid of a process where no other one is chosen
_TRIED = 10  # steps of the run in which a solver shows whether it is defined on a process


@dataclasses.dataclass(frozen=True)
class Method:
    """A solver with its grid, by name.

    Args:
        solver: Name of a solver class.
        grid: Name of a grid class, or "default" for that of the process.
        steps: Steps of the grid, at least 1; a grid with times of its own ignores them.
        eta: The solver's `eta`; None for its default. A solver without one ignores it.
    """

    solver: str = type(DEFAULT_SOLVER).__name__
    grid: str = DEFAULT
    steps: int = 20
    eta: float | None = None

    def spec(self, process: Process) -> SolverSpec:
        """The solver and the grid on a process.

        Raises:
            ParameterError: If one of them does not exist, or the process does not allow it.
        """
        solver = _of(Solver, self.solver, "solver")
        if self.eta is not None and eta_of(self.solver) is not None:
            changed: Any = {"eta": self.eta}
            solver = dataclasses.replace(solver, **changed)
        grid = default_grid(process) if self.grid == DEFAULT else _of(Grid, self.grid, "grid")
        spec = SolverSpec(solver, grid.with_steps(self.steps) or grid)
        spec.grid.check(process)
        spec.solver.check(process)
        return spec


DEFAULT_METHOD = Method()


@lru_cache(maxsize=256)
def draws_noise(spec: SolverSpec, process: Process, shape: Sequence[int]) -> bool:
    """Whether a run depends on more than its start: whether other noise leads to another end."""
    return not torch.equal(*(probe(spec, process, shape, noise)[1] for noise in (0.0, 1.0)))


def solvers(process: Process, shape: Sequence[int]) -> list[str]:
    """Names of the solvers that run on a process with their default parameters, the default solver first."""
    names = [name for name in _names(Solver, "solver") if _runs(name, process, shape)]
    return sorted(names, key=lambda name: (name != Method.solver, name))


def grids(process: Process) -> list[str]:
    """Names of the grids that a process allows, its default first."""
    names = []
    for name in _names(Grid, "grid"):
        with suppress(ParameterError):
            _of(Grid, name, "grid").check(process)
            names.append(name)
    return [DEFAULT, *sorted(names)]


def eta_of(name: str) -> float | None:
    """The default eta of a solver, the share of noise in its steps; None for a solver without one."""
    eta = getattr(_of(Solver, name, "solver"), "eta", None)
    return None if eta is None else float(eta)


def _runs(name: str, process: Process, shape: Sequence[int]) -> bool:
    try:
        probe(Method(name, steps=_TRIED).spec(process), process, shape)
    except ParameterError:
        return False
    return True


@cache
def _names(base: type, module: str) -> tuple[str, ...]:
    """The public classes below `base` that need no argument."""
    names = [name for name, home in unidiff.EXPORTS.items() if home.split(".")[0] == module]
    return tuple(name for name in names if _is_complete(getattr(unidiff, name), base))


def _is_complete(cls: Any, base: type) -> bool:
    if not (isinstance(cls, type) and issubclass(cls, base)) or inspect.isabstract(cls):
        return False
    return all(own.default is not own.empty for own in inspect.signature(cls).parameters.values())


def _of(base: type, name: str, parameter: str) -> Any:
    names = _names(base, parameter)
    if name not in names:
        raise ParameterError(parameter, f"must be one of {', '.join(sorted(names))}, got {name!r}")
    return getattr(unidiff, name)()
