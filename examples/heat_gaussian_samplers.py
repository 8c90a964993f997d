"""How many steps does the heat process need? Gaussian data, where the exact denoiser is a Wiener filter.

The data are Gaussian fields of 28x28 pixels whose spectrum falls as 1 / lambda, as that of natural images does. Along
the probability flow every mode keeps its place in its distribution, so a run from noise of size 1 in every mode ends
with the standard deviations of what is drawn, without any sampling noise. The figure is the relative error of their
gradient energy, sum_k lambda_k S_k, after N steps.

Under a blur of 20 pixels the modes of the renormalised heat process pass from noise to data in short bursts, one after
the other. Steps equal in t miss them. `ArcLength` puts the steps where the modes' noise angles turn, weighted by what
each mode contributes to the gradient energy; it costs nothing, for it needs only the spectrum. Without blur the process
is VP.

    python examples/heat_gaussian_samplers.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import Formula, Graph, save_graphs

SOLVERS: list[ud.Solver] = [ud.DDIM(), ud.DPMSolver(2), ud.ExponentialAdams()]
STEPS = [20, 50, 100]
BLURS = {"blur 20": 20.0, "blur 4": 4.0, "no blur (VP)": 0.0}


def main() -> None:
    """Measure, print the table, draw it, assert what the grid is for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=28, help="pixels; the blurs scale with it")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    errors: dict[tuple[str, str, str], list[float]] = {}
    graphs = []
    print("relative error of the gradient energy, N steps")
    print(f"  {'':14}{'':18}{'':10} " + " ".join(f"{n:>8}" for n in STEPS))
    for name, blur in BLURS.items():
        shape = (arguments.side, arguments.side)
        process = ud.RenormalizedHeat(shape, blur * arguments.side / 28)  # not fitted: the spectrum 1 / lambda
        model = gaussian(process)
        lines = []
        for solver in SOLVERS:
            for grid in (ud.Uniform, ud.ArcLength):
                found = [energy_error(model, solver, grid(n)) for n in STEPS]
                errors[name, type(solver).__name__, grid.__name__] = found
                lines.append((f"{type(solver).__name__}, {grid.__name__}", STEPS, found))
                print(
                    f"  {name:14}{type(solver).__name__:18}{grid.__name__:10} " + " ".join(f"{e:8.4f}" for e in found)
                )
        graphs.append(Graph(name, "steps", "relative error of the energy", lines, "xy", (1e-5, 1)))

    for solver in ("DDIM", "DPMSolver"):
        uniform, arc = errors["blur 20", solver, "Uniform"], errors["blur 20", solver, "ArcLength"]
        # The claim: the arc length halves the error at least, and 50 steps of DDIM on it beat 100 steps equal in t.
        assert all(2 * b < a for a, b in zip(uniform, arc))
    assert errors["blur 20", "DDIM", "ArcLength"][1] < errors["blur 20", "DDIM", "Uniform"][2]
    # Orders over the last doubling: 1 for DDIM, at least 2 for DPMSolver(2).
    first, second = (errors["blur 20", solver, "ArcLength"] for solver in ("DDIM", "DPMSolver"))
    assert 1.8 < first[1] / first[2] < 2.2
    assert second[1] / second[2] > 3.5
    # Fifty steps of the default solver, or of DPMSolver(2), are enough: 2 %.
    assert all(errors["blur 20", solver, "ArcLength"][1] < 0.02 for solver in ("DPMSolver", "ExponentialAdams"))
    size = f"{arguments.side}x{arguments.side}"
    caption = Formula(
        rf"Exact Gaussian denoiser, {size}, $S\propto1/\lambda$. An error may pass through 0: read the trend."
    )
    save_graphs(graphs, arguments.out / "heat_gaussian_samplers.png", caption)


def gaussian(process: ud.Process) -> ud.GaussianMixture:
    """The exact denoiser of Gaussian data with the spectrum that the process knows."""
    shape = process.basis.shape
    power = torch.as_tensor(process.power()).flatten()
    size = len(power)
    modes = process.basis.inverse(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, size)
    return ud.GaussianMixture(process, torch.zeros(1, *shape), modes.T @ (power[:, None] * modes))


def energy_error(model: ud.GaussianMixture, solver: ud.Solver, grid: ud.Uniform | ud.ArcLength) -> float:
    """Relative error of sum_k lambda_k std_k^2 at the end of a run from noise 1 in every mode."""
    process = model.process
    assert isinstance(process, ud.RenormalizedHeat)
    start = process.start(torch.ones_like, torch.empty(1, *process.shape, dtype=torch.float64))
    *_, end = solver.trajectory(model, start, grid.times(process), torch.zeros_like)
    return abs(float((process.eigenvalues * end.u[0] ** 2).sum()) / process.energy - 1)


if __name__ == "__main__":
    main()
