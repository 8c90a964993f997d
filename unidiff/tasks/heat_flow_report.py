"""The solution of the renormalised heat equation: its table, its files, its images."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unidiff import plot
from unidiff.pde.evolution import Flow, evolve_modes
from unidiff.precision import precise
from unidiff.run import results
from unidiff.run.directory import environment

if TYPE_CHECKING:
    from unidiff.tasks.heat_flow import HeatFlow

__all__ = ["HeatFlowOutcome", "check_place", "solve", "tabulate", "write_heat_flow"]

_TABLE, _RESULT, _VALUES, _PROFILES, _SHARES = (
    "evolution.csv",
    "evolution.json",
    "values.npy",
    "profiles.png",
    "shares.png",
)
_SHOWN = 8  # modes of the table and of the picture, at most
_SIZE = 20_000_000  # bytes of all files but the values, about


@dataclass(frozen=True)
class HeatFlowOutcome:
    """What was solved.

    Attributes:
        status: "finished" or "dry run".
        directory: Where the files are.
        recipe: The resolved recipe, as plain values.
        rows: The table, a row for each time.
        device: Where it was computed.
        environment: Versions and machine.
    """

    status: str
    directory: str
    recipe: dict[str, Any]
    rows: tuple[dict[str, float], ...] = ()
    device: str | None = None
    environment: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """See `Outcome.to_dict`."""
        return {"status": self.status, "directory": self.directory, **self.result()}

    def result(self) -> dict[str, Any]:
        """The content of evolution.json."""
        solved = {"rows": list(self.rows), "device": self.device, "environment": self.environment}
        return {"recipe": self.recipe, **(solved if self.rows else {})}

    def text(self) -> str:
        """The table's first columns, and the files."""
        if not self.rows:
            return f"{self.directory}{os.sep} (dry run: nothing was written)"
        shares = [name for name in self.rows[0] if name.startswith("share_")][:3]
        head = ["t", "r", "effective modes", "largest |u|", *(f"share of phi_{name[6:]}" for name in shares)]
        lines = ["  ".join(f"{name:>15}" for name in head)]
        for row in self.rows:
            numbers = [row[name] for name in ("t", "r", "effective_modes", "largest_value", *shares)]
            lines.append("  ".join(f"{number:>15.5g}" for number in numbers))
        files = "evolution.csv, evolution.json, values.npy, profiles.png, shares.png"
        return "\n".join([*lines, f"{self.directory}{os.sep}: {files}"])


def solve(task: HeatFlow, device: torch.device) -> Flow:
    """The solution at the times of the recipe."""
    return _solve(task, torch.tensor(task.times, dtype=torch.float64), device)


def _solve(task: HeatFlow, times: torch.Tensor, device: torch.device) -> Flow:
    domain = task.domain
    dtype = precise(device)
    modes = task.start.modes(domain).to(device, dtype)
    return evolve_modes(domain, modes, times, diffusivity=task.diffusivity, R=task.R, clean=task.clean)


def check_place(task: HeatFlow, directory: Path, overwrite: bool) -> None:
    """Refuse a directory that an evolution must not or cannot use; nothing is changed.

    Raises:
        RunError: If the place is taken or not writable.
    """
    cells = task.domain.points[0].numel()
    size = _SIZE + 8 * cells * len(task.times)
    results.check_place(directory, _RESULT, "evolution", overwrite, size)


def tabulate(task: HeatFlow, flow: Flow) -> list[dict[str, float]]:
    """A row for each time: r, rho, how many modes share the energy, the largest |u|, R as found, the first shares."""
    domain = task.domain
    shares = flow.shares.flatten(1)[:, domain.order().to(flow.shares.device)]
    columns = {
        "t": flow.times,
        "r": flow.r,
        "growth": flow.growth,
        "effective_modes": flow.effective_modes,
        "largest_value": flow.values.flatten(1).abs().amax(1),
        "gradient_energy": domain.gradient_energy(flow.modes),
        **{f"share_{k}": shares[:, k] for k in range(1, 1 + min(_SHOWN, shares.shape[1] - 1))},
    }
    return [dict(zip(columns, row)) for row in zip(*(column.tolist() for column in columns.values()))]


def write_heat_flow(task: HeatFlow, flow: Flow, directory: Path, device: torch.device) -> HeatFlowOutcome:
    """Write an evolution: evolution.csv, evolution.json, values.npy and two pictures, all of them or none.

    Args:
        task: The recipe.
        flow: Its solution.
        directory: Where to; the files of an older evolution there are replaced.
        device: Where it was computed.

    Returns:
        What was written.

    Raises:
        RunFailed: If they cannot be written.
    """
    rows = tabulate(task, flow)
    outcome = HeatFlowOutcome("finished", str(directory), task.to_dict(), tuple(rows), str(device), environment())
    with results.written_whole(directory, (_TABLE, _VALUES, _PROFILES, _SHARES, _RESULT)) as folder:
        (folder / _TABLE).write_text(_csv(rows))
        (folder / _RESULT).write_text(json.dumps(outcome.result(), indent=2, allow_nan=False) + "\n")
        np.save(folder / _VALUES, flow.values.cpu().numpy())
        caption = (
            f"u_t = {task.diffusivity:g} (Laplace u + r u), integral |grad u|^2 = {task.R:g} on "
            f"{task.domain!r} from {task.start!r}: the exact solution."
        )
        _plot_profiles(task, flow, folder / _PROFILES, caption)
        _plot_shares(task, folder / _SHARES, caption, device)
    return outcome


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plot_profiles(task: HeatFlow, flow: Flow, path: Path, caption: str) -> None:
    points, images = task.domain.points, task.domain.image(flow.values)
    titles = [f"t = {t:g}" for t in task.times]
    if len(points) == 1:
        lines = [(title, points[0].tolist(), u.tolist()) for title, u in zip(titles, images)]
        plot.save_graphs([plot.Graph("Profiles", "x", "u", lines)], path, caption)
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


def _plot_shares(task: HeatFlow, path: Path, caption: str, device: torch.device) -> None:
    """The shares as curves, from a tenth of the first time to ten times the last."""
    seen = [t for t in task.times if t > 0] or [1.0]
    first, last = math.log10(min(seen) / 10), math.log10(max(seen) * 10)
    times = torch.logspace(first, last, 200, dtype=torch.float64)
    shares = _solve(task, times, device).shares.flatten(1)[:, task.domain.order().to(device)].cpu()
    shown = (1 + shares[:, 1:].amax(0).argsort(descending=True, stable=True)[:_SHOWN]).sort().values.tolist()
    lines = [(f"phi_{k}", times.tolist(), shares[:, k].tolist()) for k in shown]
    title = "Who has the gradient energy"
    plot.save_graphs([plot.Graph(title, "t", "share of R", lines, "x", (-0.02, 1.02))], path, caption)
