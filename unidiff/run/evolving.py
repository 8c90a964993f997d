"""The recipe of an evolution: the renormalised heat equation on a domain, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unidiff.errors import ParameterError, RecipeError, require
from unidiff.pde.domain import Domain
from unidiff.pde.initial_condition import Broadband, InitialCondition
from unidiff.recipe.recipe import read_recipe
from unidiff.recipe.record import Record
from unidiff.recipe.shipped import recipe_command

__all__ = ["Evolving", "load_evolving"]


@dataclass(frozen=True, kw_only=True)
class Evolving(Record):
    """Which equation to solve. Its parameters are the top-level keys of the recipe of an evolution.

    u_t = diffusivity * (Laplace u + r u) with the integral of |grad u|^2 kept at R (Higham, Higham & Grindrod,
    equations 20 and 21).

    Args:
        domain: Where; nothing flows through its boundary.
        start: The field at t = 0; its mean is removed and its size set by `R`.
        times: When to look, each at least 0, in units of length^2 / diffusivity.
        diffusivity: Above 0.
        R: The gradient energy, above 0.
        clean: Drop modes of the start whose gradient norm is below this fraction of the largest one's; 0 to below 1.
    """

    domain: Domain
    times: tuple[float, ...]
    start: InitialCondition = field(default_factory=Broadband)
    diffusivity: float = 1.0
    R: float = 1.0
    clean: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(self.times))
        require(len(self.times) > 0, "times", [], "a list of at least one number")
        for t in self.times:
            require(0 <= t < math.inf, "times", t, "a finite number of at least 0")
        for name in ("diffusivity", "R"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")
        require(0 <= self.clean < 1, "clean", self.clean, "a number from 0 to below 1")
        try:
            self.start.modes(self.domain)
        except ParameterError as error:  # such as a mode that this domain does not have
            raise ParameterError(f"start.{error.parameter}", error.problem) from error


def load_evolving(source: str | Path, overrides: Sequence[str] = (), *, allow_imports: bool = False) -> Evolving:
    """Read the recipe of an evolution and check all of it.

    Args:
        source: A path, or the name of a shipped recipe such as "eigenmodes".
        overrides: Values to replace, each `KEY=VALUE` with a dotted key and a value in YAML.
        allow_imports: Also accept `type: module:Class`. This runs the module's code: do it for recipes you trust.

    Raises:
        RecipeError: If the recipe cannot be used as written; the message names file, line, key and remedy.
    """
    if recipe_command(source) != "evolve":
        raise RecipeError(f"{source}: this recipe has no `domain`, so there is no equation to solve in it.")
    evolving: Evolving = read_recipe(Evolving, source, overrides, allow_imports=allow_imports)
    return evolving
