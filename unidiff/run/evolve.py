"""What `unidiff run` does with the recipe of an evolution: solve, tabulate, draw."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unidiff import plot
from unidiff.pde.evolution import Flow, evolve_modes
from unidiff.precision import precise
from unidiff.run import results
from unidiff.run.directory import environment
from unidiff.run.evolving import Evolving

__all__ = ["check_place", "solve", "tabulate", "write_evolution"]

_TABLE, _RESULT, _VALUES, _PROFILES, _SHARES = (
    "evolution.csv",
    "evolution.json",
    "values.npy",
    "profiles.png",
    "shares.png",
)
_SHOWN = 8  # modes of the table and of the picture, at most
_SIZE = 20_000_000  # bytes of all files but the values, about


def solve(evolving: Evolving, device: torch.device) -> Flow:
    """The solution at the times of the recipe."""
    return _solve(evolving, torch.tensor(evolving.times, dtype=torch.float64), device)


def _solve(evolving: Evolving, times: torch.Tensor, device: torch.device) -> Flow:
    domain = evolving.domain
    modes = evolving.start.modes(domain).to(device, precise(device))
    return evolve_modes(domain, modes, times, diffusivity=evolving.diffusivity, R=evolving.R, clean=evolving.clean)


def check_place(evolving: Evolving, directory: Path, overwrite: bool) -> None:
    """Refuse a directory that an evolution must not or cannot use; nothing is changed.

    Raises:
        RunError: If the place is taken or not writable.
    """
    cells = evolving.domain.points[0].numel()
    size = _SIZE + 8 * cells * len(evolving.times)
    results.check_place(directory, _RESULT, "evolution", overwrite, size)


def tabulate(evolving: Evolving, flow: Flow) -> list[dict[str, float]]:
    """A row for each time: r, rho, how many modes share the energy, the largest |u|, R as found, the first shares."""
    domain = evolving.domain
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


def write_evolution(evolving: Evolving, flow: Flow, directory: Path, device: torch.device) -> dict[str, Any]:
    """Write an evolution: evolution.csv, evolution.json, values.npy and two pictures, all of them or none.

    Args:
        evolving: The recipe.
        flow: Its solution.
        directory: Where to; the files of an older evolution there are replaced.
        device: Where it was computed.

    Returns:
        The content of evolution.json.

    Raises:
        RunFailed: If they cannot be written.
    """
    rows = tabulate(evolving, flow)
    result = {"recipe": evolving.to_dict(), "rows": rows, "device": str(device), "environment": environment()}
    with results.written_whole(directory, (_TABLE, _VALUES, _PROFILES, _SHARES, _RESULT)) as folder:
        (folder / _TABLE).write_text(_csv(rows))
        (folder / _RESULT).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        np.save(folder / _VALUES, flow.values.cpu().numpy())
        caption = (
            f"u_t = {evolving.diffusivity:g} (Laplace u + r u), integral |grad u|^2 = {evolving.R:g} on "
            f"{evolving.domain!r} from {evolving.start!r}: the exact solution."
        )
        _plot_profiles(evolving, flow, folder / _PROFILES, caption)
        _plot_shares(evolving, folder / _SHARES, caption, device)
    return result


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plot_profiles(evolving: Evolving, flow: Flow, path: Path, caption: str) -> None:
    points, images = evolving.domain.points, evolving.domain.image(flow.values)
    titles = [f"t = {t:g}" for t in evolving.times]
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


def _plot_shares(evolving: Evolving, path: Path, caption: str, device: torch.device) -> None:
    """The shares as curves, from a tenth of the first time to ten times the last."""
    seen = [t for t in evolving.times if t > 0] or [1.0]
    first, last = math.log10(min(seen) / 10), math.log10(max(seen) * 10)
    times = torch.logspace(first, last, 200, dtype=torch.float64)
    shares = _solve(evolving, times, device).shares.flatten(1)[:, evolving.domain.order().to(device)].cpu()
    shown = (1 + shares[:, 1:].amax(0).argsort(descending=True, stable=True)[:_SHOWN]).sort().values.tolist()
    lines = [(f"phi_{k}", times.tolist(), shares[:, k].tolist()) for k in shown]
    title = "Who has the gradient energy"
    plot.save_graphs([plot.Graph(title, "t", "share of R", lines, "x", (-0.02, 1.02))], path, caption)
