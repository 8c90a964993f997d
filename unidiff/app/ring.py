"""Eight Gaussians on a circle, whose score is known: its field at one time, and the paths of samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unidiff.app.choices import DEFAULT_METHOD, Method, draws_noise
from unidiff.data.toy import Ring
from unidiff.errors import require, require_whole
from unidiff.evaluation.conditional import rms
from unidiff.evaluation.reference import Flow, reference_flow
from unidiff.exact import GaussianMixture
from unidiff.plot.appearance import COLOURS, style
from unidiff.plot.figure import new_figure
from unidiff.process.base import Process
from unidiff.process.ddpm import DDPM
from unidiff.process.flow import FlowMatching
from unidiff.process.variance_exploding import NCSN
from unidiff.process.variance_preserving import VPSDE
from unidiff.solver.sample import Solution, sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PROCESSES", "Paths", "figures", "model", "paths", "score_field"]

PROCESSES: dict[str, Process] = {
    "VP-SDE": VPSDE(),
    "DDPM": DDPM(),
    "NCSN": NCSN(0.01, 5.0, 100),
    "flow matching": FlowMatching(),
}
_REACH = 1.8  # half the side of the window, of data of radius 1 or so
_ARROWS = 21  # along a side
_MOST = 256  # paths


@lru_cache(maxsize=8)
def model(process: str) -> GaussianMixture:
    """The exact model of the ring under a process of `PROCESSES`.

    Raises:
        ParameterError: If there is no such process.
    """
    require(process in PROCESSES, "process", process, f"one of {', '.join(PROCESSES)}")
    ring = Ring()
    return GaussianMixture(PROCESSES[process], ring.means, ring.std**2)


def score_field(exact: GaussianMixture, t: float, points: Tensor) -> Tensor:
    """The score of the noisy data at time t, at points (N, 2): the gradient of log p_t, (N, 2) float64.

    Raises:
        ParameterError: If t is not from 0 to 1; below the process's t_min it is t_min.
    """
    require(0 <= t <= 1, "t", t, "a time from 0 to 1")
    level = exact.process.level(max(t, exact.process.t_min))
    return exact(points.double(), level).score


@dataclass(frozen=True)
class Paths:
    """Samples of the ring on their way from noise.

    Attributes:
        solution: With a state of every time of the grid.
        label: The solver and its grid.
        error: Root mean square distance from the exact flow; None for a solver that draws noise.
    """

    solution: Solution
    label: str
    error: float | None

    def words(self) -> str:
        """How they were drawn, and how far from the exact flow they are."""
        steps = len(self.solution.times) - 1
        text = f"{self.label}: {steps} steps, {self.solution.nfe} evaluations per sample. "
        if self.error is None:
            return text + "This solver draws noise, so its samples follow no flow."
        return text + f"rms distance {self.error:.2e} from the exact flow from the same noise."


def paths(process: str, method: Method = DEFAULT_METHOD, seed: int = 0, count: int = 32) -> Paths:
    """Draw samples of the ring, and keep their states, in float64.

    Args:
        process: A name of `PROCESSES`.
        method: Solver, grid, steps and eta.
        seed: Seed of the first sample, at least 0.
        count: Samples, 1 to 256.

    Raises:
        ParameterError: If a number is out of range, or the process does not allow the solver or the grid.
    """
    require_whole("seed", seed, 0, 2**62)
    require_whole("count", count, 1, _MOST)
    exact = model(process)
    spec = method.spec(exact.process)
    steps, seeds = len(spec.grid.times(exact.process)), range(seed, seed + count)
    solution = sample(exact, spec.solver, spec.grid, seeds=seeds, dtype=torch.float64, keep=steps)
    random = draws_noise(spec, exact.process, exact.shape)
    return Paths(solution, spec.label, None if random else rms(solution.x, _flow(process, seed, count).x))


@lru_cache(maxsize=32)
def _flow(process: str, seed: int, count: int) -> Flow:
    return reference_flow(model(process), (2,), range(seed, seed + count))


@style()
def figures(process: str, t: float, drawn: Paths) -> list[Figure]:
    """The score field at time t, with the states of samples at about that time, and the paths of the samples."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    exact = model(process)
    side = torch.linspace(-_REACH, _REACH, _ARROWS, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    score = score_field(exact, t, points)
    size = score.norm(dim=1)
    size = size.clamp(min=float(size.quantile(0.02)))  # at the centre of the ring it is 0
    arrows = (score / size[:, None]).numpy()
    panels, ((left,), (right,)) = zip(*(new_figure(1, (3.6, height)) for height in (4.1, 3.4)))
    drawing = left.quiver(
        *points.T.numpy(), *arrows.T, size.numpy(), cmap="viridis", norm=LogNorm(), scale=_ARROWS * 1.3, width=0.004
    )
    ticks: dict[str, Any] = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "%g"}
    bar = panels[0].colorbar(drawing, ax=left, label="length of the score", location="bottom", shrink=0.85, **ticks)
    bar.minorticks_off()
    near = min(drawn.solution.path, key=lambda state: abs(state.t - t))
    left.scatter(*near.u.T.numpy(), s=14, color=COLOURS[1], edgecolors="white", linewidths=0.5, zorder=3)
    left.set_title(f"score at t = {t:.2f}")
    states = torch.stack([state.u for state in drawn.solution.path]).numpy()  # (times, samples, 2)
    right.plot(states[:, :, 0], states[:, :, 1], color=COLOURS[0], linewidth=0.7, alpha=0.7)
    right.scatter(*exact.means.T.numpy(), s=90, facecolors="none", edgecolors="0.5", linewidths=1, zorder=2)
    right.scatter(*states[-1].T, s=14, color=COLOURS[1], edgecolors="white", linewidths=0.5, zorder=3)
    right.set_title("paths from noise to data")
    for ax in (left, right):
        ax.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), xlabel="$x_1$", ylabel="$x_2$")
        ax.set_aspect("equal")
    return list(panels)
