"""A solver with a grid, and the short text for both."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import unidiff
from unidiff.errors import ParameterError
from unidiff.grid import Grid, Uniform, default_grid
from unidiff.process.base import Process
from unidiff.solver.base import Solver

__all__ = ["SolverSpec", "grid_for", "named", "short", "solver_and_grid", "solver_specs"]


@dataclass(frozen=True)
class SolverSpec:
    """A solver and the grid it runs on; in a comparison the grid's `steps`, if it has them, are replaced."""

    solver: Solver
    grid: Grid

    @property
    def label(self) -> str:
        """The short form of both, such as `DDIM(eta=0.5) @ Uniform`."""
        few, more = self.grid.with_steps(50), self.grid.with_steps(51)  # they differ in the number of steps alone
        fixed = [f.name for f in dataclasses.fields(self.grid) if getattr(few, f.name, 0) == getattr(more, f.name, 0)]
        return f"{short(self.solver)} @ {short(self.grid, fixed)}"

    def with_steps(self, steps: int) -> SolverSpec:
        """With another number of steps; those of Native, which has its own, are replaced by equal ones in time."""
        return dataclasses.replace(self, grid=self.grid.with_steps(steps) or Uniform(steps))

    @classmethod
    def of(cls, entry: Any, grid: Grid, parameter: str = "solvers") -> SolverSpec:
        """Read an entry of a list of solvers.

        Args:
            entry: A solver, a solver with its grid, or a text `SOLVER[:NUMBER][@GRID[:NUMBER]]`. A name is that of the
                class, in any case and without underscores, or an unambiguous beginning of it (the shortest class name
                if it begins all others). The number sets the parameter `order` if there is one, else the first numeric
                parameter.
            grid: The grid of an entry that names none.
            parameter: What messages call the entry.

        Raises:
            ParameterError: If a name or a number is invalid, or the entry is of another type.
        """
        match entry:
            case Solver():
                return cls(entry, grid)
            case (Solver() as solver, Grid() as own_grid):
                return cls(solver, own_grid)
            case str():
                solver, own = named(entry, parameter)
                return cls(solver, own or grid)
        allowed = "a solver, a pair (solver, grid), or a string such as 'ddim:0.5@uniform'"
        raise ParameterError(parameter, f"must be {allowed}, got {entry!r}")


def solver_and_grid(process: Process, solver: Solver | str, grid: Grid | str | int | None) -> tuple[Solver, Grid]:
    """The solver and the grid that a caller names; every function with both of them begins with this.

    Args:
        process: The process of the model.
        solver: A solver, or its name as in `SolverSpec.of`, with its grid perhaps: "ddim:0.5@karras".
        grid: A grid, the name of one, or a number of steps: of the grid in the solver's name, or of the default grid.

    Raises:
        ParameterError: If a name is unknown, or two grids are named.
    """
    if not isinstance(solver, str):
        return solver, grid_for(process, grid)
    method, own = named(solver)
    if own is None or grid is None:
        return method, own or grid_for(process, grid)
    if not isinstance(grid, int):
        raise ParameterError("grid", f"{solver!r} names a grid already. Leave one of them out.")
    if (fitted := own.with_steps(grid)) is None:
        raise ParameterError("grid", f"{own!r} of {solver!r} has no number of steps to set. Leave the number out.")
    return method, fitted


def named(text: str, parameter: str = "solver") -> tuple[Solver, Grid | None]:
    """The solver of a name, and the grid behind its @; see `SolverSpec.of`."""
    solver, at, grid = text.partition("@")
    return _part(Solver, solver, text, parameter), _part(Grid, grid, text, parameter) if at else None


def grid_for(process: Process, grid: Grid | str | int | None) -> Grid:
    """A grid by itself, by name, by its number of steps, or by default."""
    match grid:
        case None:
            return default_grid(process)
        case int():
            return default_grid(process, grid)
        case str():
            found: Grid = _part(Grid, grid, grid, "grid")
            return found
    return grid


def solver_specs(entries: Any, grid: Grid) -> list[SolverSpec]:
    """Read one or several solvers, each as for `SolverSpec.of`; repeated ones are dropped."""
    listed = [entries] if isinstance(entries, (str, Solver)) else entries
    return list(dict.fromkeys(SolverSpec.of(entry, grid) for entry in listed))


def short(part: Solver | Grid, names: Sequence[str] | None = None) -> str:
    """A constructor call without defaults but for an order, of all parameters or only those in `names`."""
    fields = [field for field in dataclasses.fields(part) if names is None or field.name in names]
    changed = [
        f"{f.name}={getattr(part, f.name)!r}"
        for f in fields
        if f.name == "order" or getattr(part, f.name) != _default(f)
    ]
    return type(part).__name__ + (f"({', '.join(changed)})" if changed else "")


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _part(base: type, text: str, whole: str, parameter: str) -> Any:
    """A solver or grid from `name` or `name:number`."""
    name, colon, number = text.partition(":")
    cls, arguments = _find(base, name.strip(), whole, parameter), {}
    if colon:
        hints = get_type_hints(cls)
        types = {n: _number(hints[n]) for n in inspect.signature(cls).parameters if n != "steps"}
        numeric = {n: number_type for n, number_type in types.items() if number_type is not None}
        if not numeric:
            problem = f"{whole!r}: {cls.__name__} has no numeric parameter for ':{number}'."
            raise ParameterError(parameter, problem)
        chosen = "order" if "order" in numeric else next(iter(numeric))
        try:
            arguments[chosen] = numeric[chosen](number)
        except ValueError as error:
            allowed = "an integer" if numeric[chosen] is int else "a number"
            raise ParameterError(parameter, f"{whole!r}: {chosen} must be {allowed}, got {number!r}") from error
    try:
        return cls(**arguments)
    except ParameterError as error:
        raise ParameterError(parameter, f"{whole!r}: {error}") from error


def _number(annotation: Any) -> type | None:
    """Int or float if a parameter is one of them, or that or None; else None."""
    types = [t for t in get_args(annotation) or (annotation,) if t is not type(None)]
    return types[0] if len(types) == 1 and types[0] in (int, float) else None


def _find(base: type, name: str, whole: str, parameter: str) -> type:
    """The public class below `base` with this name, or with this beginning of a name."""

    def is_choice(cls: object) -> bool:
        return isinstance(cls, type) and issubclass(cls, base) and not inspect.isabstract(cls)

    modules = ("solver", "grid", "fixed_grid", "editing")
    names = sorted(name for name, home in unidiff.EXPORTS.items() if home.split(".")[0] in modules)
    choices = {name.lower(): cls for name in names if is_choice(cls := getattr(unidiff, name))}
    folded = name.replace("_", "").lower()
    if folded in choices:
        return choices[folded]
    matches = sorted((known for known in choices if folded and known.startswith(folded)), key=len)
    if matches and all(known.startswith(matches[0]) for known in matches):
        return choices[matches[0]]
    if matches:
        problem = f"{name!r} is ambiguous: {' or '.join(sorted(matches))}. Write more of the name."
    else:
        close = difflib.get_close_matches(folded, choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        problem = f"there is no {base.__name__.lower()} {name!r}.{hint} Choose one of {', '.join(choices)}."
    raise ParameterError(parameter, f"{whole!r}: {problem}")
