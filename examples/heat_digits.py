"""Digits from the renormalised heat equation, beside a variance-preserving diffusion.

Two processes, one small network for each, the same training, the same noise. VP mixes image and noise in all scales
alike, and the picture's gradient energy falls from that of noise to that of digits. The renormalised heat process
(Higham, Higham & Grindrod, eq. 20-21) blurs while noise comes in, and rescales so that E|grad x_t|^2 = R, that of the
digits, at every time. On the way back the large shapes come first, the strokes last, and the gradient energy stays R:
by construction for the exact model, as far as it has learnt for a network.

The library's training loop on the 8x8 digits that come with scikit-learn: about 100 seconds for both networks on one
core. That is too short for good digits; `unidiff run heat_digits` trains a U-Net on the same process for four minutes.

    python examples/heat_digits.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import Formula, Graph, save_graphs, save_samples, save_strip

ENERGY = Formula(r"mean of $|\nabla x_t|^2/R$")


def main() -> None:
    """Train both, draw, follow the gradient energy, assert where it stays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    source = ud.data.Digits().open()
    data = source.batch(torch.arange(len(source)))
    weight, basis = ud.DCT((8, 8)).eigenvalues(), ud.DCT((8, 8))

    def energy(x: torch.Tensor) -> float:
        """Mean over images of |grad x|^2 = sum_k lambda_k x_k^2."""
        return float((weight * basis.forward(x.double()).square()).sum((1, 2, 3)).mean())

    R = energy(data)
    heat = ud.RenormalizedHeat((8, 8), 1.5).fit([data])
    assert abs(heat.energy / R - 1) < 1e-6  # what the process measured is the energy of these images
    processes: dict[str, ud.Process] = {"heat": heat, "VP": ud.CosineVP()}
    settings = ud.Training(arguments.steps, batch=128, lr=2e-3, warmup=50, ema=0.998, precision="fp32", log_every=100)
    print(f"R = {R:.2f}; {arguments.steps} steps of training each")
    print("           loss   gradient energy / R on the way   nearest digit   energy distance to the digits")
    lines, drawn, paths, times, ranges = [], {}, {}, [], {}
    for name, process in processes.items():
        torch.manual_seed(0)
        model = ud.NeuralDenoiser(process, ud.X0(), ud.MLP((1, 8, 8), width=256))
        losses: list[float] = []
        averaged = ud.train(
            model, source, ud.Denoising(ud.MinSNR()), settings,
            on_step=lambda progress, losses=losses: losses.append(progress.loss or 0.0),
        )  # fmt: skip
        grid = ud.ArcLength(50)
        solution = ud.sample(averaged, ud.Ancestral(), grid, seeds=arguments.count, keep=51)
        energies = [energy(state.u) / R for state in solution.path]
        times = [state.t for state in solution.path]
        lines.append((name, times, energies))
        drawn[name], paths[name], ranges[name] = solution.x, solution.path, (min(energies), max(energies))
        near = torch.cdist(solution.x.flatten(1), data.flatten(1)).min(1).values.median()
        distance = ud.evaluation.energy_distance(solution.x, data)
        print(f"  {name:5} {losses[-1]:9.4f}   {min(energies):14.3f} to {max(energies):.3f}", end="")
        print(f"   {near:19.2f}   {distance.value:+.4f} +- {distance.error:.4f}")

    low, high = ranges["heat"]
    # The claim: on the way from noise to digits the heat process keeps the gradient energy, and VP does not.
    assert low > 0.8
    assert high < 1.1
    assert ranges["VP"][1] > 2
    chosen = [round(i * 50 / 11) for i in range(12)]
    states = [torch.cat([paths[name][i].u[:4] for name in processes]) for i in chosen]
    caption = f"From noise to digits, {arguments.steps} steps of training each."
    path, names = arguments.out / "heat_digits_path.png", [*processes]
    save_strip(states, [times[i] for i in chosen], path, caption, rows=names)
    samples = torch.cat([drawn[name][:32] for name in processes])
    save_samples(samples, arguments.out / "heat_digits.png", "Upper half: renormalised heat. Lower half: VP.")
    graph = Graph("Gradient energy on the way from t = 1 to 0", "t", ENERGY, lines)
    save_graphs(
        [graph], arguments.out / "heat_digits_energy.png", Formula(r"$E|\nabla x_t|^2=R$ is kept by the heat process.")
    )


if __name__ == "__main__":
    main()
