"""The renormalised heat equation backwards: the second open question of Higham, Higham & Grindrod, section 7.

A field is let flow for a time T, a little noise falls on it, and the start is asked for. Each mode has shrunk by
e^(-lambda_k T), so the inverse of the heat equation overflows. The renormalised flow conserves |grad u|^2 = R, and so
does its reverse on any finite number of modes: the error is never above 2, and sqrt(2) where nothing is left but noise.

How many modes to reverse is the question, and log(1 / noise) / T answers it: as many as are above the noise. The
resolution is then the mollifier. A cut-off at that mode needs no more than the size of the noise, and is hardly worse
than the filter that knows how much power to expect in each mode. What is under the noise no filter can restore; a
sample of the posterior invents it with the right power, as a generative model does.

The fields are pairs of hats at random places. Errors are |grad (found - truth)| / sqrt(R), means over 100 fields.

    python examples/heat_backward.py
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from unidiff.pde import (
    GradientModes,
    MeanFieldForcing,
    Mollifier,
    PosteriorMean,
    PosteriorSample,
    SpectralCutoff,
    Tikhonov,
    TruncatedInverse,
    Wiener,
    mode_deviation,
    posterior,
    recover,
    recover_modes,
    resolvable_modes,
)
from unidiff.pde.domain import Interval
from unidiff.plot import COLOURS, look, new_figure, save_figure, style

DOMAIN, R = Interval(128), 11.15
GRADIENT = GradientModes(DOMAIN)
TRUTHS = 100


@style()
def main() -> None:
    """Recover hats from what the flow left of them, in every way there is, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure, axes = new_figure(2, (7.2, 7.4), 2)

    generator = torch.Generator().manual_seed(0)
    fields = hats(2000, generator)
    spectrum = GRADIENT.select(fields[TRUTHS:]).square().mean(0)  # the prior: power expected in each mode
    truths = fields[:TRUTHS]
    methods: dict[str, Mollifier] = {
        "naive": TruncatedInverse(),
        "cut-off": SpectralCutoff(),
        "Tikhonov": Tikhonov(),
        "Wiener": Wiener(spectrum),
        "posterior mean": PosteriorMean(spectrum),
        "posterior sample": PosteriorSample(spectrum, range(TRUTHS)),
    }
    one_field(axes[0], truths, methods, generator)
    errors_over_time(axes[1], truths, methods, generator)
    best_resolution(axes[2], truths, generator)
    noise_during_the_flow(axes[3], spectrum, generator)
    save_figure(figure, arguments.out / "heat_backward.png")


def one_field(ax, truths: Tensor, methods: dict[str, Mollifier], generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    """One field, what is seen of it, and what is made of that."""
    time, relative = 1e-3, 1e-2
    values = DOMAIN.to_values(flow(truths, time))
    deviation = relative * float(values.square().mean().sqrt())
    values = values + deviation * normal(values.shape, generator)
    x = DOMAIN.points[0]
    ax.plot(x, DOMAIN.to_values(truths)[3], "k", linewidth=2.2, label="start")
    ax.plot(x, values[3], "0.6", linewidth=2.2, label="seen, noise 1 %")
    for number, name in enumerate(methods):
        if name in ("cut-off", "posterior mean", "posterior sample"):
            found = recover(DOMAIN, values, time, methods[name], R, deviation)[3]
            ax.plot(x, found, **look(number, len(x)), label=name)
    ax.set(xlabel="x", ylabel="u", title=f"One field, T = {time:g}")
    ax.legend()


def errors_over_time(ax, truths: Tensor, methods: dict[str, Mollifier], generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    """The error of each method against T, for two levels of noise."""
    times = torch.logspace(-4, -1, 10).tolist()
    print("error of recovery (root mean square over 100 fields)")
    for relative, dashes in ((1e-6, ":"), (1e-2, "-")):
        print(f"\n  noise {relative:g}\n         T   modes  " + "  ".join(f"{name:>16}" for name in methods))
        table = []
        for time in times:
            seen, deviation = observe(truths, time, relative, generator)
            modes = float(resolvable_modes(DOMAIN, truths, time, deviation).double().mean())
            found = [recover_modes(DOMAIN, seen, time, method, R, deviation) for method in methods.values()]
            table.append([float(errors(each, truths).square().mean().sqrt()) for each in found])
            print(f"  {time:8.1e}  {modes:6.1f}  " + "  ".join(f"{error:16.3f}" for error in table[-1]))
            error = dict(zip(methods, table[-1]))
            # The claims. What is on one sphere is at most 2 apart, and sqrt(2) where noise rules.
            if time > 1e-3:
                assert abs(error["naive"] - math.sqrt(2)) < 0.05
            # Nothing is better than the posterior mean, which knows the power to expect. A sample of the posterior is
            # further off, by sqrt(2): it has the variance of the truth once more.
            assert error["posterior mean"] == min(error.values())
            assert abs(error["posterior sample"] / error["posterior mean"] - math.sqrt(2)) < 0.1
            # Without a prior the cut-off comes close to the filter that has one, but for the shortest times, when
            # many modes are neither seen nor lost.
            if modes >= 5 and time > 1e-3:
                assert error["cut-off"] < 1.1 * error["Wiener"]
        for number, (name, line) in enumerate(zip(methods, zip(*table))):
            looks = {**look(number), "linestyle": dashes}
            ax.plot(times, line, **looks, label=name if dashes == "-" else None)
    ax.set(xscale="log", yscale="log", xlabel="T", ylabel="error", title="Noise $10^{-2}$, and dotted $10^{-6}$")
    ax.legend()


def best_resolution(ax, truths: Tensor, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    """The naive inverse on n modes: finite resolution as the mollifier, and its optimum."""
    print("\n      T    noise   best n   modes above the noise   error at best n, at twice that")
    for number, (time, relative) in enumerate(((1e-3, 1e-6), (1e-3, 1e-2), (1e-2, 1e-6), (1e-2, 1e-2))):
        seen, deviation = observe(truths, time, relative, generator)
        counts = range(1, 64)
        line = [float(errors(recover_modes(DOMAIN, seen, time, TruncatedInverse(n), R), truths).mean()) for n in counts]
        best = counts[line.index(min(line))]
        modes = float(resolvable_modes(DOMAIN, truths, time, deviation).double().mean())
        ax.plot(counts, line, **look(number, len(line)), label=f"{time:g}, {relative:g}")
        ax.axvline(modes, color=COLOURS[number], linestyle=":", linewidth=1)
        twice = line[min(2 * best, len(line)) - 1]
        print(f"  {time:g}  {relative:7g}  {best:5d}  {modes:15.1f}  {min(line):24.3f}, {twice:.3f}")
        # The claims: the optimum is at the modes above the noise; with twice as many nothing is left of the field.
        assert abs(best - modes) < max(2, 0.2 * modes)
        assert twice > 1.2
    ax.axhline(math.sqrt(2), color="0.5", linewidth=1, linestyle=(0, (1, 1)), label=r"$\sqrt{2}$")
    ax.set(xlabel="n", ylabel="error", title="Naive inverse on $n$ modes;\ndotted: modes above the noise")
    ax.legend(title="T, noise", loc="center right")


def noise_during_the_flow(ax, spectrum: Tensor, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    """Noise that falls during the flow, white in the gradient: the flow smooths it too, and the damage is graceful."""
    shares = GRADIENT.eigenvalues * spectrum / R  # E y_k^2
    times = torch.logspace(-4, 0, 40).tolist()
    print("\nnoise eps^2 during the flow: error of the posterior mean by formula (simulated), bits of information kept")
    for number, strength in enumerate((1e-3, 1e-2, 1e-1, 1.0)):
        forcing = MeanFieldForcing.on(DOMAIN, strength)
        line = []
        for time in times:
            state = forcing.at(time, shares)
            line.append(math.sqrt(posterior(shares, state.alpha, state.variance, shares).variance.sum()))
        label = rf"$\epsilon^2=10^{{{round(math.log10(strength**2))}}}$"
        ax.plot(times, line, **look(number, len(times)), label=label)
        words = []
        for time in (1e-3, 1e-2, 1e-1):
            state = forcing.at(time, shares)
            y = shares.sqrt() * normal((1000, len(shares)), generator)
            law = posterior(state.draw(y, lambda like: normal(like.shape, generator)), *state[:2], shares)
            squares = (law.mean - y).square().sum(1)
            formula, simulated = float(law.variance.sum()), float(squares.mean())
            bits = float(torch.log2(1 + state.alpha**2 * shares / state.variance).sum() / 2)
            words.append(f"T = {time:g}: {math.sqrt(formula):.3f} ({math.sqrt(simulated):.3f}), {bits:5.1f} bit")
            # The claim: the formula. Four standard errors.
            assert abs(simulated - formula) < 4 * float(squares.std()) / math.sqrt(1000)
        print(f"  {strength**2:5.0e}   " + "   ".join(words))
        # The claim: the error grows with T, and never above 1, that of knowing nothing.
        assert all(a < b < 1 for a, b in pairwise(line))
    ax.set(xscale="log", xlabel="T", ylabel="error", ylim=(0, 1), title="Noise during the flow:\nposterior mean")
    ax.legend()


def hats(count: int, generator: torch.Generator) -> Tensor:
    """Modes of pairs of hats with random places, widths and heights; gradient energy R: (count, 128)."""
    place, width, height = torch.rand(3, count, 2, 1, dtype=torch.float64, generator=generator)
    distance = (DOMAIN.points[0] - 0.15 - 0.7 * place).abs() / (0.05 + 0.1 * width)
    modes = DOMAIN.to_modes(((2 * height - 1) * (1 - distance).clamp(min=0)).sum(1))
    return GRADIENT.modes(GRADIENT.directions(modes), R)


def flow(modes: Tensor, time: float) -> Tensor:
    """The exact flow: heat, and one rescaling."""
    rates = DOMAIN.eigenvalues
    return GRADIENT.modes(GRADIENT.directions(torch.exp((rates[1] - rates) * time) * modes), R)


def observe(truths: Tensor, time: float, relative: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Modes at time T with noise of `relative` times the values' root mean square; and the noise of a mode."""
    modes = flow(truths, time)
    deviation = mode_deviation(DOMAIN, relative * float(DOMAIN.to_values(modes).square().mean().sqrt()))
    return modes + deviation * normal(modes.shape, generator), deviation


def errors(found: Tensor, truths: Tensor) -> Tensor:
    """|grad (found - truth)| / sqrt(R)."""
    return (DOMAIN.gradient_energy(found - truths) / R).sqrt()


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal noise, float64."""
    return torch.randn(shape, dtype=torch.float64, generator=generator)


if __name__ == "__main__":
    main()
