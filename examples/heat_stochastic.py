"""The renormalised heat equation under noise: the first open question of Higham, Higham & Grindrod, section 7.

The equation lets heat flow and keeps |grad u|^2 = R. Without noise every start ends in the lowest mode. Noise can be
added in two ways that keep the constraint.

Path by path, noise acts along the sphere |grad u|^2 = R. Then u samples a Bingham distribution: the lowest mode
carries a share of the gradient energy that falls from 1 to 1/K as the noise grows. Its moments are known exactly, and a
simulation has them.

In the mean, E |grad u|^2 = R. Then the multiplier r(t) is a number, every mode is Gaussian, and the law is known in
closed form at every time: an ensemble of paths that share one r follows it. The stationary r has a sign. On the unit
interval it is positive (the equation amplifies, against diffusion) up to eps^2 = 12, and negative (it damps, as a
variance-preserving diffusion model does) above.

On an interval all this has a limit of infinite resolution. On a square it has none, unless the noise is smoother than
white in the gradient.

    python examples/heat_stochastic.py
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import torch

from unidiff.pde import MeanFieldForcing, PathwiseForcing, interval_multiplier
from unidiff.pde.domain import Interval, Rectangle
from unidiff.plot import COLOURS, look, new_figure, save_figure, style

MODES = 8
NOISES = (1.0, 5.0, 20.0, 100.0)  # eps^2


@style()
def main() -> None:
    """Compare laws, simulations and closed forms, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure, axes = new_figure(2, (7.2, 7.2), 2)
    stationary_laws(axes[0], arguments.paths)
    sign_of_the_multiplier(axes[1])
    finite_times(axes[2], arguments.paths)
    resolution(axes[3])
    save_figure(figure, arguments.out / "heat_stochastic.png")


def stationary_laws(ax, paths: int) -> None:  # type: ignore[no-untyped-def]
    """Shares of the gradient energy in the three lowest modes: exact, simulated, and in the mean."""
    domain, generator = Interval(MODES + 1), torch.Generator().manual_seed(0)
    grid = torch.logspace(-0.7, 2.5, 60).tolist()
    exact = torch.stack([PathwiseForcing(domain, math.sqrt(q)).law.second_moments() for q in grid])
    mean = torch.stack([MeanFieldForcing.on(domain, math.sqrt(q)).stationary().second_moments for q in grid])
    for k in range(3):
        looks = {**look(k, len(grid)), "linestyle": "-"}
        ax.plot(grid, exact[:, k], **looks, label=f"mode {k + 1}")
        ax.plot(grid, mean[:, k], color=COLOURS[k], linestyle=":")

    print(f"E y_k^2 on the unit interval, {MODES} modes, k = 1, 2, 3")
    print("  eps^2   simulated              Bingham                in the mean            r in the mean")
    for q in NOISES:
        forcing, average = PathwiseForcing(domain, math.sqrt(q)), MeanFieldForcing.on(domain, math.sqrt(q)).stationary()
        # From the law in the mean, which is near; 0.2 units of time forget the rest, 0.3 are averaged over.
        y = average.second_moments.sqrt() * torch.randn(paths, MODES, dtype=torch.float64, generator=generator)
        run = forcing.trajectory(y / y.norm(dim=-1, keepdim=True), 0.5, 1000, lambda like: normal(like, generator))
        squares = torch.stack([y**2 for number, y in enumerate(run) if number >= 400 and number % 10 == 0]).mean(0)
        simulated, law = squares.mean(0), forcing.law.second_moments()
        ax.plot([q] * 3, simulated[:3], "kx", label="simulated" if q == 1 else None)
        print(f"  {q:5g}   {row(simulated)}   {row(law)}   {row(average.second_moments)}   {average.multiplier:8.2f}")
        # The claim: the paths sample the Bingham law. Four standard errors, and 1 % for the step of the simulation.
        allowed = 4 * squares.std(0) / math.sqrt(paths) + 0.01 * law
        assert ((simulated - law).abs() < allowed)[:3].all()
    ax.set(xscale="log", xlabel=r"$\epsilon^2$", ylabel="share of the gradient energy")
    ax.set_title("Stationary laws: each path,\nand dotted in the mean")
    ax.legend()


def sign_of_the_multiplier(ax) -> None:  # type: ignore[no-untyped-def]
    """The stationary r against the noise; at infinite resolution it is 0 at eps^2 = 12."""
    grid = torch.linspace(0.5, 24, 100).tolist()
    print("\nthe noise eps^2 at which r changes sign, and r at 12")
    for modes in (4, 16, 64):
        r = [MeanFieldForcing.on(Interval(modes + 1), math.sqrt(q)).stationary().multiplier for q in grid]
        ax.plot(grid, r, **look((4, 16, 64).index(modes), len(grid)), label=f"{modes} modes")
        # sum_k q / (2 lambda_k) = 1 at r = 0.
        critical = 2 / sum((math.pi * k) ** -2 for k in range(1, modes + 1))
        at_twelve = MeanFieldForcing.on(Interval(modes + 1), math.sqrt(12)).stationary().multiplier
        print(f"  {modes:5d} modes   {critical:.4f}   {at_twelve:+.4f}")
        assert abs(MeanFieldForcing.on(Interval(modes + 1), math.sqrt(critical)).stationary().multiplier) < 1e-12
    ax.plot(grid, [interval_multiplier(math.sqrt(q)) for q in grid], "k--", label="infinite")
    ax.axhline(0, color="0.5", linewidth=1)
    ax.axvline(12, color="0.5", linewidth=1, linestyle=":")
    ax.set(xlabel=r"$\epsilon^2$", ylabel="$r$", title="The multiplier changes sign\nat $\\epsilon^2=12$")
    ax.legend()
    print(f"   infinitely many 12.0000   {interval_multiplier(math.sqrt(12)):+.4f}")
    # The claim: the sign changes at 12.
    assert interval_multiplier(math.sqrt(11.99)) > 0 > interval_multiplier(math.sqrt(12.01))


def finite_times(ax, paths: int) -> None:  # type: ignore[no-untyped-def]
    """From one start, eps^2 = 5: the closed form against an ensemble that shares its r; and each path for itself."""
    domain, q, generator = Interval(MODES + 1), 5.0, torch.Generator().manual_seed(1)
    start = torch.tensor([1.0, -1.0, 0.8, 0.5, -0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    start = start / start.norm()
    forcing, alone = MeanFieldForcing.on(domain, math.sqrt(q)), PathwiseForcing(domain, math.sqrt(q))
    ensemble, single = start.repeat(5 * paths, 1), start.repeat(paths, 1)
    dt, steps = 2.5e-4, 240
    half = torch.exp(-forcing.rates * dt / 2)
    times, shared, separate = [], [], []
    for number in range(1, steps + 1):
        # Half a step of heat, noise, half a step of heat; then one number for all paths: E |y|^2 = 1.
        ensemble = half * (half * ensemble + math.sqrt(q * dt) * normal(ensemble, generator))
        ensemble = ensemble / ensemble.square().sum(1).mean().sqrt()
        single = alone.step(single, dt, lambda like: normal(like, generator))
        if number % 20 == 0:
            times.append(number * dt)
            shared.append(ensemble.square().mean(0))
            separate.append(single.square().mean(0))
    grid = [steps * dt * i / 100 for i in range(101)]
    curves = torch.stack([forcing.at(t, start**2).second_moments for t in grid])
    for k in range(3):
        ax.plot(grid, curves[:, k], color=COLOURS[k], linestyle=("-", "--", ":")[k], label=f"mode {k + 1}")
        dots = {"color": COLOURS[k], "linestyle": ""}
        ax.plot(times, torch.stack(shared)[:, k], **dots, marker="o", label="one r for all" if k == 0 else None)
        ax.plot(times, torch.stack(separate)[:, k], **dots, marker="x", label="each path" if k == 0 else None)
    ax.set(xlabel="$t$", ylabel="$E\\,y_k^2$", title="From one start, $\\epsilon^2=5$;\nlines: closed form in the mean")
    ax.legend()

    print(f"\nfrom one start, eps^2 = {q:g}: E y_k^2 for k = 1, 2, 3, and the means")
    for time, squares in zip(times[::4], shared[::4]):
        state = forcing.at(time, start**2)
        print(f"  t = {time:.3f}   ensemble {row(squares)}   closed form {row(state.second_moments)}", end="")
        print(f"   alpha y {row(state.alpha * start)}   r {state.multiplier:6.2f}")
    state = forcing.at(times[-1], start**2)
    mean_error = (ensemble.mean(0) - state.alpha * start).abs()
    # The claim: the ensemble follows the closed form. Four standard errors (also for the random norm, twice), and 0.5 %
    # for its step.
    spread = ensemble.square().std(0) / math.sqrt(5 * paths)
    assert ((shared[-1] - state.second_moments).abs() < 8 * spread + 0.005).all()
    assert (mean_error < 8 * ensemble.std(0) / math.sqrt(5 * paths) + 0.005).all()


def resolution(ax) -> None:  # type: ignore[no-untyped-def]
    """The lowest mode's share, eps^2 = 5, against the number of modes: an interval, a square, smoother noise on it."""

    def share(domain: Interval | Rectangle, smoothness: float) -> float:
        return float(MeanFieldForcing.on(domain, math.sqrt(5), smoothness).stationary().second_moments[0])

    sides = (4, 8, 16, 32, 64, 128)
    interval = [share(Interval(n * n), 0) for n in sides]
    square = [share(Rectangle((n, n)), 0) for n in sides]
    smooth = [share(Rectangle((n, n)), 0.5) for n in sides]
    counts = [n * n - 1 for n in sides]
    smoother = r"square, noise $\propto\lambda^{-1/2}$"
    for number, (shares, label) in enumerate(((interval, "interval"), (square, "square"), (smooth, smoother))):
        ax.plot(counts, shares, **look(number), label=label)
    limit = 5 / (2 * (math.pi**2 - interval_multiplier(math.sqrt(5))))
    ax.axhline(limit, color="0.5", linestyle=(0, (1, 1)), label="interval, infinite")
    ax.set(
        xscale="log",
        xlabel="modes",
        ylabel="share of the lowest mode",
        title=r"Resolution, $\epsilon^2=5$",
        ylim=(0, 1),
    )
    ax.legend()
    print("\nshare of the lowest mode, eps^2 = 5")
    print("   modes  interval  square  square, smoother noise")
    for line in zip(counts, interval, square, smooth):
        print("  {:6d}    {:.4f}  {:.4f}  {:.4f}".format(*line))
    # The claims: a limit on the interval; none on the square, where doublings of the side go on taking a part of what
    # is left; a limit again for s = 1/2 > d/2 - 1, reached like 1/n.
    assert abs(interval[-1] - limit) < 1e-4
    assert square[-1] < 0.8 * square[-2] < 0.7 * square[-3]
    changes = [a - b for a, b in pairwise(smooth)]
    assert changes[-1] < 0.6 * changes[-2]


def normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise for all paths from one stream; `unidiff.Seeded` would give each path its own."""
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


def row(numbers: torch.Tensor) -> str:
    """The first three."""
    return " ".join(f"{number:6.4f}" for number in numbers[:3].tolist())


if __name__ == "__main__":
    main()
