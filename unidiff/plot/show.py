"""The picture of a result: what `.plot()` of a Solution, a Comparison, a Flow and a model returns."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.evaluation.comparison import Comparison, Line
from unidiff.pde.evolution import Flow
from unidiff.plot.diagrams import Curve, Panel, curves_figure
from unidiff.plot.figure import new_figure
from unidiff.plot.samples import draw_samples
from unidiff.solver.sample import Solution, sample

__all__ = ["comparison_panels", "figure", "name_of"]

_MOST = 64  # samples that are drawn
_STATES = 6  # columns of a path
_STEPS = 20  # of the samples that show a model


@singledispatch
def figure(shown: Any) -> Any:
    """A matplotlib Figure of a result; a TypeError for what has no picture."""
    raise TypeError(f"{type(shown).__name__} has no picture")


@figure.register
def _solution(shown: Solution) -> Any:
    states = [(f"t = {state.t:.2f}", state.u) for state in shown.path] or [("", shown.x)]
    chosen = torch.linspace(0, len(states) - 1, min(_STATES, len(states))).round().long().tolist()
    drawn, axes = new_figure(len(chosen), (3.2 * len(chosen), 3.4))
    for ax, number in zip(axes, chosen):
        title, x = states[number]
        draw_samples(ax, x if x.ndim == 2 else x[:_MOST], title)
    return drawn


@figure.register
def _model(shown: Denoiser) -> Any:
    """Samples of a model, drawn in 20 steps by the default solver; of one with conditions their null ones."""
    weights = next(shown.parameters(), torch.empty(0))
    cond: dict[str, Any] = {
        own.name: own.null(16, weights) for own in shown.conditions or () if own.name in shown.required
    }
    count = 16 if len(shown.shape or ()) != 1 or cond else 500
    return _solution(sample(shown, grid=_STEPS, seeds=count, device=weights.device, **cond))


@figure.register
def _comparison(shown: Comparison) -> Any:
    return curves_figure(comparison_panels(shown), "evaluations")


@figure.register
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
            axes[0].plot(shown.domain.points[0].cpu(), _numbers(fields[number]), label=label)
            continue
        plane = shown.domain.image(fields[number]) if len(grid) < 3 else fields[number][..., grid[2] // 2]
        values = _numbers(plane)
        reach = float(abs(values[values == values]).max())
        look = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach, "origin": "lower"}
        axes[column].set(title=label, xticks=[], yticks=[])
        axes[column].imshow(values.T, **look)
    if lines:
        axes[0].set(xlabel="x", ylabel="u(x, t)")
        axes[0].legend(fontsize=8)
    axes[-1].plot(_numbers(times), _numbers(r.reshape(len(times), -1)[:, 0]), marker=".")
    axes[-1].set(xlabel="t", ylabel="r(t)")
    return drawn


def _numbers(x: Tensor) -> Any:
    return x.detach().double().cpu().numpy()


def name_of(line: Line) -> str:
    """A line of a comparison, in its legend."""
    return f"{line.model}: {line.label}" if line.model else line.label


def comparison_panels(comparison: Comparison) -> list[Panel]:
    """The diagrams of a comparison: distances from the true flow and from the distribution."""
    flow, energy = [], []
    for line in comparison.lines:
        order = "" if line.order is None else f", order {line.order:.2f}"
        rms = [(row.nfe, row.rms, 0.0) for row in line.rows if row.rms is not None]
        if rms:
            flow.append(Curve(name_of(line), f"{name_of(line)}{order}", *map(list, zip(*rms))))
        distances = [(row.nfe, *row.distances.energy) for row in line.rows if row.distances.energy is not None]
        if distances:
            energy.append(Curve(name_of(line), name_of(line), *map(list, zip(*distances))))
    floor = max(comparison.flow_errors.values(), default=None)
    base = comparison.baseline.energy
    panels = [
        Panel("Distance from the true flow", "rms over samples and dimensions", flow, floor, "error of the reference"),
        Panel(
            "Distance from the true distribution",
            "energy distance (a triangle: not above 2 standard errors)",
            energy,
            None if base is None else max(base.value, 2 * base.error),
            "fresh true samples, or 2 standard errors",
        ),
    ]
    return [panel for panel in panels if panel.curves] or panels[:1]
