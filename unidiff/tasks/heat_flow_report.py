"""The solution of the renormalised heat equation: its table, its files, its images."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from unidiff import plot
from unidiff.pde.evolution import Flow, evolve_modes
from unidiff.precision import precise
from unidiff.run.directory import environment
from unidiff.run.results import ResultsOutcome

if TYPE_CHECKING:
    from unidiff.tasks.heat_flow import HeatFlow

__all__ = ["FILES", "solve", "tabulate", "write_heat_flow"]

FILES = "evolution.csv", "values.npy", "profiles.png", "shares.png", "evolution.json"
_MODES = 8  # of the table and of the figure, at most


def solve(task: HeatFlow, times: Sequence[float], device: torch.device) -> Flow:
    """The solution at some times."""
    modes = task.start.modes(task.domain).to(device, precise(device))
    t = torch.tensor(times, dtype=torch.float64)
    return evolve_modes(task.domain, modes, t, diffusivity=task.diffusivity, R=task.R, clean=task.clean)


def tabulate(task: HeatFlow, flow: Flow) -> list[dict[str, float]]:
    """A row for each time: r, rho, effective modes, largest |u|, gradient energy, first shares."""
    domain = task.domain
    shares = flow.shares.flatten(1)[:, domain.order().to(flow.shares.device)]
    columns = {
        "t": flow.times,
        "r": flow.r,
        "growth": flow.growth,
        "effective_modes": flow.effective_modes,
        "largest_value": flow.values.flatten(1).abs().amax(1),
        "gradient_energy": domain.gradient_energy(flow.modes),
        **{f"share_{k}": shares[:, k] for k in range(1, 1 + min(_MODES, shares.shape[1] - 1))},
    }
    return [dict(zip(columns, row)) for row in zip(*(column.tolist() for column in columns.values()))]


def write_heat_flow(task: HeatFlow, flow: Flow, directory: Path, device: torch.device) -> ResultsOutcome:
    """Write a solution: table, summary, values and two figures, all of them or none.

    Args:
        task: The recipe.
        flow: Its solution.
        directory: Where to; the files of an older solution there are replaced.
        device: Where it was computed.

    Raises:
        RunFailed: If they cannot be written.
    """
    rows = tabulate(task, flow)
    content = {"recipe": task.to_dict(), "rows": rows, "device": str(device), "environment": environment()}
    table, values, profiles, shares, _ = FILES
    caption = (
        f"u_t = {task.diffusivity:g} (Laplace u + r u), integral |grad u|^2 = {task.R:g} on "
        f"{task.domain!r} from {task.start!r}: the exact solution."
    )
    with task.written(directory, content) as folder:
        (folder / table).write_text(_csv(rows))
        np.save(folder / values, flow.values.cpu().numpy())
        _plot_profiles(task, flow, folder / profiles, caption)
        _plot_shares(task, folder / shares, caption, device)
    return ResultsOutcome(directory, content, FILES, _text(rows))


def _text(rows: list[dict[str, float]]) -> str:
    """The first columns of the table."""
    shares = [name for name in rows[0] if name.startswith("share_")][:3]
    head = ["t", "r", "effective modes", "largest |u|", *(f"share of phi_{name[6:]}" for name in shares)]
    lines = ["  ".join(f"{name:>15}" for name in head)]
    for row in rows:
        numbers = [row[name] for name in ("t", "r", "effective_modes", "largest_value", *shares)]
        lines.append("  ".join(f"{number:>15.5g}" for number in numbers))
    return "\n".join(lines)


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
    positive = [t for t in task.times if t > 0] or [1.0]
    first, last = math.log10(min(positive) / 10), math.log10(max(positive) * 10)
    times = torch.logspace(first, last, 200, dtype=torch.float64).tolist()
    shares = solve(task, times, device).shares.flatten(1)[:, task.domain.order().to(device)].cpu()
    largest = (1 + shares[:, 1:].amax(0).argsort(descending=True, stable=True)[:_MODES]).sort().values.tolist()
    lines = [(f"phi_{k}", times, shares[:, k].tolist()) for k in largest]
    title = "Shares of the gradient energy"
    plot.save_graphs([plot.Graph(title, "t", "share of R", lines, "x", (-0.02, 1.02))], path, caption)
