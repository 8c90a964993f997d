"""What a comparison compares: a solver with a grid, or the short text that names them."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import unidiff
from unidiff.errors import ParameterError
from unidiff.grid import Grid
from unidiff.solver.base import Solver

__all__ = ["SolverSpec", "short", "solver_specs"]


@dataclass(frozen=True)
class SolverSpec:
    """A solver and the grid it runs on; the grid's `steps`, where it has them, are replaced.

    Args:
        solver: The method.
        grid: The times.
    """

    solver: Solver
    grid: Grid

    @property
    def label(self) -> str:
        """Both in a few words, such as `DDIM(eta=0.5) @ Uniform`."""
        few, more = self.grid.with_steps(50), self.grid.with_steps(51)  # they differ in the number of steps alone
        fixed = [f.name for f in dataclasses.fields(self.grid) if getattr(few, f.name, 0) == getattr(more, f.name, 0)]
        return f"{short(self.solver)} @ {short(self.grid, fixed)}"

    @classmethod
    def of(cls, given: Any, grid: Grid) -> SolverSpec:
        """Read an entry of a list of solvers.

        Args:
            given: A solver, a solver with its grid, or a text `SOLVER[:NUMBER][@GRID[:NUMBER]]`. A name is that of the
                class, in any case and without underscores, or its beginning where no other class begins so (or where
                all that do are longer forms of one name). The number sets the parameter `order` if there is one, else
                the first numeric parameter.
            grid: The grid of an entry that names none.

        Raises:
            ParameterError: If a name or a number cannot be used, or the entry is nothing of the kind.
        """
        match given:
            case Solver():
                return cls(given, grid)
            case (Solver() as solver, Grid() as its_own):
                return cls(solver, its_own)
            case str():
                name, at, on = given.partition("@")
                return cls(_part(Solver, name, given), _part(Grid, on, given) if at else grid)
        allowed = "a solver, a pair (solver, grid), or a text such as 'ddim:0.5@uniform'"
        raise ParameterError("solvers", f"must be {allowed}, got {given!r}")


def solver_specs(given: Any, grid: Grid) -> list[SolverSpec]:
    """Read a list of solvers, or one, each as for `SolverSpec.of`; one that is given twice counts once."""
    listed = [given] if isinstance(given, (str, Solver)) else given
    return list(dict.fromkeys(SolverSpec.of(entry, grid) for entry in listed))


def short(part: Solver | Grid, names: Sequence[str] | None = None) -> str:
    """A solver or grid as one would write it, without defaults; of all its parameters, or of those named."""
    fields = [field for field in dataclasses.fields(part) if names is None or field.name in names]
    changed = [f"{f.name}={getattr(part, f.name)!r}" for f in fields if getattr(part, f.name) != _default(f)]
    return type(part).__name__ + (f"({', '.join(changed)})" if changed else "")


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _part(base: type, written: str, whole: str) -> Any:
    """A solver or grid from `name` or `name:number`."""
    name, colon, number = written.partition(":")
    cls = _find(base, name.strip(), whole)
    arguments = {}
    if colon:
        hints = get_type_hints(cls)
        kinds = {n: _number(hints[n]) for n in inspect.signature(cls).parameters if n != "steps"}
        numeric = {n: kind for n, kind in kinds.items() if kind is not None}
        if not numeric:
            raise ParameterError("solvers", f"{whole!r}: {cls.__name__} has no number that ':{number}' could set.")
        chosen = "order" if "order" in numeric else next(iter(numeric))
        try:
            arguments[chosen] = numeric[chosen](number)
        except ValueError as error:
            kind = "an integer" if numeric[chosen] is int else "a number"
            problem = f"{whole!r}: {number!r} was given for {chosen}; {kind} belongs there."
            raise ParameterError("solvers", problem) from error
    try:
        return cls(**arguments)
    except ParameterError as error:
        raise ParameterError("solvers", f"{whole!r}: {error}") from error


def _number(annotation: Any) -> type | None:
    """Int or float, where a parameter is one of them, or that or None; else None."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (int, float) else None


def _find(base: type, name: str, whole: str) -> type:
    homes = sorted(
        (name, home) for name, home in unidiff.EXPORTS.items() if home.split(".")[0] in ("solver", "grid", "editing")
    )
    public = {name.lower(): getattr(unidiff, name) for name, _ in homes}
    choices = {name: cls for name, cls in public.items() if _is_concrete(cls, base)}
    folded = name.replace("_", "").lower()
    found = [known for known in choices if known.startswith(folded)] if folded else []
    if folded in choices or (found and all(known.startswith(min(found, key=len)) for known in found)):
        return choices[folded if folded in choices else min(found, key=len)]
    kind = base.__name__.lower()
    if found:
        problem = f"{name!r} may be {' or '.join(found)}. Write more of the name."
    else:
        close = difflib.get_close_matches(folded, choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        problem = f"there is no {kind} {name!r}.{hint} There are: {', '.join(choices)}."
    raise ParameterError("solvers", f"{whole!r}: {problem}")


def _is_concrete(cls: object, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base) and not inspect.isabstract(cls)
