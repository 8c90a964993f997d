"""The heat equation on an interval, as it is and with its gradient kept: the field, its modes and their shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff.errors import require, require_whole
from unidiff.noise import generator_of
from unidiff.pde.domain import Interval
from unidiff.pde.evolution import Flow, evolve
from unidiff.plot.appearance import COLOURS, look, style
from unidiff.plot.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["INITIAL", "RANDOM", "TIMES", "field", "figures", "solve", "words"]

TIMES = (-5.0, 0.0)  # log10 t, the ends of the slider
RANDOM = "white noise"  # the initial field that depends on a seed
_PANEL = (3.6, 2.9)  # inches
_POINTS = 256
_FIRST, _DRAWN = 40, 6  # modes of the bars, and of the curves
_OF_CURVES = 101  # times


def _rough(x: Tensor, seed: int) -> Tensor:
    return torch.randn(len(x), generator=generator_of(seed), dtype=torch.float64)


INITIAL: dict[str, Callable[[Tensor, int], Tensor]] = {
    "two waves": lambda x, seed: (9 * x).sin() + 0.5 * (40 * x).cos(),
    "a step": lambda x, seed: torch.where(x < 0.35, 1.0, -1.0).double(),
    "a peak": lambda x, seed: torch.exp(-(((x - 0.3) / 0.02) ** 2)),
    RANDOM: _rough,
}


def solve(initial: str, log_time: float, seed: int = 0) -> Flow:
    """The renormalised heat equation from an initial field: at 0, at t, and at 101 times over the whole slider.

    Args:
        initial: A name of `INITIAL`.
        log_time: log10 t.
        seed: Of white noise, at least 0.

    Raises:
        ParameterError: If there is no such initial field, or a number is out of range.
    """
    require(initial in INITIAL, "initial", initial, f"one of {', '.join(INITIAL)}")
    require(-12 <= log_time <= 12, "log_time", log_time, "a number from -12 to 12")
    require_whole("seed", seed, 0, 2**62)
    x = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    exact = torch.float64
    times = torch.cat(
        [torch.tensor([0.0, 10.0**log_time], dtype=exact), torch.logspace(*TIMES, _OF_CURVES, dtype=exact)]
    )
    return evolve(Interval(_POINTS), INITIAL[initial](x, seed), times)


def field(flow: Flow, renormalised: bool = True) -> Tensor:
    """The field at all times, (T, points); of the heat equation itself it is e^{-rho(t)} times that of the flow.

    The multiplier r(t) of the renormalised equation multiplies all modes alike, so that both have the same shares.
    """
    return flow.values if renormalised else flow.values * flow.growth.neg().exp()[:, None]


def words(flow: Flow) -> str:
    """The time, the multiplier, and which mode has most of the gradient energy."""
    shares = flow.shares[1]
    most = int(shares.argmax())
    return (
        f"t = {float(flow.times[1]):.3g}: r = {float(flow.r[1]):.4g}. The effective number of modes that carry the "
        f"gradient energy is {float(flow.effective_modes[1]):.3g}; mode {most} has {100 * float(shares[most]):.1f} %."
    )


@style()
def figures(flow: Flow, renormalised: bool = True) -> list[Figure]:
    """The field at 0 and t, the sizes of its modes, the shares of gradient energy over time, and the multiplier r."""
    panels, axes = zip(*(new_figure(1, _PANEL) for _ in range(4)))
    (field_ax,), (modes_ax,), (shares_ax,), (r_ax,) = axes
    values, x = field(flow, renormalised), flow.domain.points[0]
    field_ax.plot(x, values[0], color="0.55", linestyle=(0, (4, 2)), label="t = 0")
    field_ax.plot(x, values[1], color=COLOURS[1], label=f"t = {float(flow.times[1]):.3g}")
    field_ax.set(xlabel="x", ylabel="u(x, t)", title="field")
    field_ax.legend()
    scale = torch.ones(len(flow.times)) if renormalised else flow.growth.neg().exp()
    sizes = (flow.modes * scale[:, None]).abs()[:2, 1 : _FIRST + 1].clamp(min=1e-12)
    modes = range(1, _FIRST + 1)
    modes_ax.scatter(modes, sizes[0], s=12, color="0.55", label="t = 0")
    modes_ax.vlines(modes, 1e-12, sizes[1], color=COLOURS[1], linewidth=2, label=f"t = {float(flow.times[1]):.3g}")
    modes_ax.set(xlabel="mode k", ylabel="$|u_k|$", yscale="log", title="modes")
    modes_ax.set_ylim(1e-6 * float(sizes.max()), 3 * float(sizes.max()))
    modes_ax.legend()
    times, shares = flow.times[2:], flow.shares[2:, 1:]
    # Those that have the largest share at some time: the others would lie on the axis.
    leading = sorted(shares.amax(0).topk(min(_DRAWN, shares.shape[1])).indices.tolist())
    for number, k in enumerate(leading):
        shares_ax.plot(times, shares[:, k], label=f"k = {k + 1}", **look(number, len(times)))
    shares_ax.set(xlabel="t", ylabel="share", xscale="log", title="shares of the gradient energy")
    shares_ax.set(ylim=(0, 1.42), yticks=[0, 0.25, 0.5, 0.75, 1])  # curves leave no place for the legend below 1
    shares_ax.legend(loc="upper center", ncols=3, handlelength=2.2, columnspacing=1, fontsize=8)
    r_ax.plot(times, flow.r[2:], color=COLOURS[0])
    r_ax.set(xlabel="t", ylabel="r(t)", xscale="log", yscale="log", title="multiplier r(t)")
    for ax in (shares_ax, r_ax):
        ax.axvline(float(flow.times[1]), color="0.35", linestyle=(0, (4, 2)), linewidth=1.2)
    return list(panels)
