"""Solving the renormalised heat equation on a domain, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from unidiff import plot
from unidiff.errors import ParameterError, require
from unidiff.pde.domain import Domain
from unidiff.pde.evolution import Flow, evolve_modes
from unidiff.pde.initial_condition import Broadband, InitialCondition
from unidiff.precision import precise
from unidiff.run.environment import environment
from unidiff.run.results import ResultsOutcome, ResultsTask
from unidiff.run.task import Reporter
from unidiff.words import in_words

__all__ = ["HeatFlow"]

_MODES = 8  # of the table and of the figure, at most


@dataclass(frozen=True, kw_only=True, repr=False)
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
    files: ClassVar[tuple[str, ...]] = "evolution.csv", "values.npy", "profiles.png", "shares.png", "evolution.json"

    def __post_init__(self) -> None:
        require(len(self.times) > 0, "times", [], "a list of at least one number")
        for t in self.times:
            require(0 <= t < math.inf, "times", t, "a finite number >= 0")
        for name in ("diffusivity", "R"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number > 0")
        require(0 <= self.clean < 1, "clean", self.clean, "a number in [0, 1)")
        try:
            self.start.modes(self.domain)
        except ParameterError as error:  # such as a mode that this domain does not have
            raise ParameterError(f"start.{error.parameter}", error.problem) from error

    def size(self) -> int:
        """With the values, see `ResultsTask.size`."""
        return super().size() + 8 * self.domain.points[0].numel() * len(self.times)

    def compute(self, directory: Path, reporter: Reporter, device: torch.device, allow_imports: bool) -> ResultsOutcome:
        """Solve the equation; see `ResultsTask.compute`."""
        flow = self._solve(self.times, device)
        rows = self._tabulate(flow)
        content = {"recipe": self.to_dict(), "rows": rows, "device": str(device), "environment": environment()}
        table, values, profiles, shares, _ = self.files
        formulas = rf"$u_t={self.diffusivity:g}\,(\Delta u+r\,u)$, $\int|\nabla u|^2={self.R:g}$"
        names = plot.shown(f"Domain: {in_words(self.domain)}; start: {in_words(self.start)}.")
        caption = plot.Formula(f"{formulas}, the exact solution. {names}")
        with self.written(directory, content) as folder:
            lines = [list(rows[0]), *(row.values() for row in rows)]
            (folder / table).write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
            np.save(folder / values, flow.values.cpu().numpy())
            self._plot_profiles(flow, folder / profiles, caption)
            self._plot_shares(folder / shares, caption, device)
        return ResultsOutcome(directory, content, self.files, _text(rows))

    def _solve(self, times: Sequence[float], device: torch.device) -> Flow:
        """The solution at some times."""
        modes = self.start.modes(self.domain).to(device, precise(device))
        t = torch.tensor(times, dtype=torch.float64)
        return evolve_modes(self.domain, modes, t, diffusivity=self.diffusivity, R=self.R, clean=self.clean)

    def _tabulate(self, flow: Flow) -> list[dict[str, float]]:
        """A row for each time: r, rho, effective modes, largest |u|, gradient energy, first shares."""
        shares = flow.shares.flatten(1)[:, self.domain.order().to(flow.shares.device)]
        columns = {
            "t": flow.times,
            "r": flow.r,
            "growth": flow.growth,
            "effective_modes": flow.effective_modes,
            "largest_value": flow.values.flatten(1).abs().amax(1),
            "gradient_energy": self.domain.gradient_energy(flow.modes),
            **{f"share_{k}": shares[:, k] for k in range(1, 1 + min(_MODES, shares.shape[1] - 1))},
        }
        return [dict(zip(columns, row)) for row in zip(*(column.tolist() for column in columns.values()))]

    def _plot_profiles(self, flow: Flow, path: Path, caption: str) -> None:
        points, images = self.domain.points, self.domain.image(flow.values)
        titles = [f"t = {t:g}" for t in self.times]
        if len(points) == 1:
            lines = [(title, points[0].tolist(), u.tolist()) for title, u in zip(titles, images)]
            plot.save_graphs([plot.Graph("Profiles", plot.Formula("$x$"), plot.Formula("$u$"), lines)], path, caption)
            return
        if len(points) == 3:  # the middle slice
            images = images[..., images.shape[-1] // 2]
            titles = [f"{title}, z = {float(points[2][0, 0, points[2].shape[2] // 2]):.3g}" for title in titles]
        # From the first cell's centre to the last one's is one cell less than the side.
        counts = images.shape[1:3]
        width, height = (
            float(axis.max() - axis.min()) * n / (n - 1) if n > 1 else 1.0 for axis, n in zip(points[:2], counts)
        )
        cells = list(zip(images, titles))
        rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
        plot.save_fields(rows, [(width, height)] * len(rows), path, caption)

    def _plot_shares(self, path: Path, caption: str, device: torch.device) -> None:
        """The shares as curves, from a tenth of the first time to ten times the last."""
        positive = [t for t in self.times if t > 0] or [1.0]
        first, last = math.log10(min(positive) / 10), math.log10(max(positive) * 10)
        times = torch.logspace(first, last, 200, dtype=torch.float64).tolist()
        shares = self._solve(times, device).shares.flatten(1)[:, self.domain.order().to(device)].cpu()
        largest = (1 + shares[:, 1:].amax(0).argsort(descending=True, stable=True)[:_MODES]).sort().values.tolist()
        lines = [(plot.Formula(rf"$\phi_{{{k}}}$"), times, shares[:, k].tolist()) for k in largest]
        title = "Shares of the gradient energy"
        plot.save_graphs(
            [plot.Graph(title, plot.Formula("$t$"), plot.Formula("share of $R$"), lines, "x", (-0.02, 1.02))],
            path,
            caption,
        )


def _text(rows: list[dict[str, float]]) -> str:
    """The first columns of the table."""
    shares = [name for name in rows[0] if name.startswith("share_")][:3]
    head = ["t", "r", "effective modes", "largest |u|", *(f"share of phi_{name[6:]}" for name in shares)]
    lines = ["  ".join(f"{name:>15}" for name in head)]
    for row in rows:
        numbers = [row[name] for name in ("t", "r", "effective_modes", "largest_value", *shares)]
        lines.append("  ".join(f"{number:>15.5g}" for number in numbers))
    return "\n".join(lines)
