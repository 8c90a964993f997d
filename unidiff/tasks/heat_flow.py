"""Solving the renormalised heat equation on a domain, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from unidiff.errors import ParameterError, require
from unidiff.pde.domain import Domain
from unidiff.pde.initial_condition import Broadband, InitialCondition
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.task import Reporter
from unidiff.tasks.heat_flow_report import FILES, solve, write_heat_flow

__all__ = ["HeatFlow"]


@dataclass(frozen=True, kw_only=True)
class HeatFlow(ResultsTask):
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
    results: ClassVar[str] = "evolution"
    files: ClassVar[tuple[str, ...]] = FILES

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

    def size(self) -> int:
        """With the values, see `ResultsTask.size`."""
        return super().size() + 8 * self.domain.points[0].numel() * len(self.times)

    def compute(self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool) -> ResultsOutcome:
        """See `ResultsTask.compute`."""
        return write_heat_flow(self, solve(self, self.times, device), directory, device)
