"""The picture of a result: what `.plot()` of a Solution, a Comparison, a Flow and a model returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from unidiff.condition.check import least_conditions
from unidiff.denoiser import Denoiser
from unidiff.evaluation.comparison import Comparison, Line
from unidiff.pde.evolution import Flow
from unidiff.plot.appearance import look, style
from unidiff.plot.diagrams import Curve, Panel, save_curves
from unidiff.plot.figure import new_figure
from unidiff.plot.samples import save_samples, save_strip
from unidiff.solver.sample import Solution, sample

__all__ = ["comparison_panels", "figure", "grid_of", "names_of"]

_MOST = 64  # images that are drawn
_PATHS = 8  # images whose paths are drawn
_STATES = 6  # columns of a path
_STEPS = 20  # of the samples that show a model


@singledispatch
def figure(shown: Any) -> Any:
    """A matplotlib Figure of a result; a TypeError for what has no picture."""
    raise TypeError(f"{type(shown).__name__} has no picture")


@figure.register
def _solution(shown: Solution) -> Any:
    images = shown.x.ndim > 2
    if not shown.path:
        return save_samples(shown.x[:_MOST] if images else shown.x, None)
    chosen = torch.linspace(0, len(shown.path) - 1, min(_STATES, len(shown.path))).round().long().tolist()
    states = [shown.path[number] for number in chosen]
    return save_strip([state.u[:_PATHS] if images else state.u for state in states], [s.t for s in states], None)


@figure.register
def _model(shown: Denoiser) -> Any:
    """Samples of a model, drawn in 20 steps by the default solver; of one with conditions their null ones."""
    device = next(shown.parameters(), torch.empty(0)).device
    cond: dict[str, Any] = least_conditions(shown, 16)
    count = 16 if len(shown.shape or ()) != 1 or cond else 500
    return _solution(sample(shown, grid=_STEPS, seeds=count, device=device, **cond))


@figure.register
def _comparison(shown: Comparison) -> Any:
    return save_curves(comparison_panels(shown), "evaluations", None)


@figure.register
@style()
def _flow(shown: Flow) -> Any:
    """A field at some of its times: lines over an interval, images over two dimensions; beside it r(t)."""
    axes_of_time = shown.times.ndim
    times, r = shown.times.reshape(-1), shown.r
    grid = shown.values.shape[axes_of_time + shown.R.ndim :]
    fields = shown.values.reshape(len(times), -1, *grid)[:, 0]
    chosen = torch.linspace(0, len(times) - 1, min(_STATES, len(times))).round().long().tolist()
    lines = len(grid) == 1
    drawn, axes = new_figure(2 if lines else len(chosen) + 1, (9.0 if lines else 2.6 * (len(chosen) + 1), 3.4))
    for column, number in enumerate(chosen):
        label = f"t = {float(times[number]):.3g}"
        if lines:
            points = shown.domain.points[0].cpu()
            axes[0].plot(points, _numbers(fields[number]), label=label, **look(column, len(points)))
            continue
        plane = shown.domain.image(fields[number]) if len(grid) < 3 else fields[number][..., grid[2] // 2]
        values = _numbers(plane)
        reach = float(abs(values[values == values]).max())
        colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach, "origin": "lower"}
        axes[column].set(title=label, xticks=[], yticks=[])
        axes[column].imshow(values.T, **colours)
    if lines:
        axes[0].set(xlabel="x", ylabel="u(x, t)")
        axes[0].legend()
    axes[-1].plot(_numbers(times), _numbers(r.reshape(len(times), -1)[:, 0]), marker=".")
    axes[-1].set(xlabel="t", ylabel="r(t)")
    return drawn


def _numbers(x: Tensor) -> Any:
    return x.detach().double().cpu().numpy()


def names_of(lines: Sequence[Line]) -> list[str]:
    """What tells the lines apart: the model if there are several, the solver, and a grid that not most are on."""
    several = len({line.model for line in lines}) > 1
    labels = [line.label.removesuffix(f" @ {grid_of(lines)}") for line in lines]
    return [f"{line.model}: {label}" if several else label for line, label in zip(lines, labels)]


def grid_of(lines: Sequence[Line]) -> str:
    """The grid that most lines are on."""
    return Counter(line.label.partition(" @ ")[2] for line in lines).most_common(1)[0][0]


def comparison_panels(comparison: Comparison) -> list[Panel]:
    """The diagrams of a comparison: distances from the true flow and from the distribution."""
    flow, energy = [], []
    for name, line in zip(names_of(comparison.lines), comparison.lines):
        order = "" if line.order is None else f" (slope {line.order:.2f})"
        rms = [(row.nfe, row.rms, 0.0) for row in line.rows if row.rms is not None]
        if rms:
            flow.append(Curve(name, f"{name}{order}", *map(list, zip(*rms))))
        distances = [(row.nfe, *row.distances.energy) for row in line.rows if row.distances.energy is not None]
        if distances:
            energy.append(Curve(name, name, *map(list, zip(*distances))))
    floor = max(comparison.flow_errors.values(), default=None)
    base = comparison.baseline.energy
    panels = [
        Panel("How far from the true flow?", "root mean square error", flow, floor, "error of the reference itself"),
        Panel(
            "How far from the true distribution?",
            "energy distance",
            energy,
            None if base is None else max(base.value, 2 * base.error),
            "hollow: as good as true samples",
        ),
    ]
    return [panel for panel in panels if panel.curves] or panels[:1]
