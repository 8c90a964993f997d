"""Solving the renormalised heat equation on a domain, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from typing_extensions import Unpack

from unidiff.errors import ParameterError, require
from unidiff.pde.domain import Domain
from unidiff.pde.initial_condition import Broadband, InitialCondition
from unidiff.run.task import Options, Reporter, Task
from unidiff.tasks.heat_flow_report import HeatFlowOutcome, check_place, solve, write_heat_flow
from unidiff.training.device import resolve_device

__all__ = ["HeatFlow"]


@dataclass(frozen=True, kw_only=True)
class HeatFlow(Task):
    """Solve an equation. Its parameters are the top-level keys of the recipe.

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

    key: ClassVar[str] = "domain"
    noun: ClassVar[str] = "a solution of the renormalised heat equation"

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

    def run(self, directory: Path, reporter: Reporter, **options: Unpack[Options]) -> HeatFlowOutcome:
        """Solve it, and write table and pictures; see `Task.run`."""
        if options.get("resume"):
            self.resumed(directory)
        where = resolve_device(options.get("device", "auto"))
        check_place(self, directory, options.get("overwrite", False))
        if options.get("dry_run"):
            return HeatFlowOutcome("dry run", str(directory), self.to_dict())
        return write_heat_flow(self, solve(self, where), directory, where)
