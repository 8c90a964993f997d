"""MNIST with the renormalised heat process: which blur, which noise? An experiment for a GPU.

For blurs of 2, 4, 10 and 20 pixels and for white noise and noise of the data's spectrum, a U-Net is trained by the
recipe `heat_mnist_cpu` with more width and steps, into a run directory each (`run` of a recipe, which is
`unidiff run`), and so are VP and blurring diffusion with its floor of 0.001. A run that is there is loaded, so the
experiment can be stopped between runs. For each the script prints the gradient energy along the reverse path over that
of the data, and the energy distance of the samples to the test images in the features of
`unidiff.evaluation.Discriminants`.
For the confidence of a classifier give the arrays it writes to benchmarks/mnist_classifier.py.

At full size (10 runs of 40,000 steps with 2.2 million parameters) it has not been run: no GPU was at hand. `--tiny`
runs two of the processes for a few steps with a network that is too small, to show that all of it works; the asserted
claim, that the states keep the gradient energy at the start of the path, holds for any network.

    python examples/heat_mnist.py --runs runs/heat_mnist
    python examples/heat_mnist.py --tiny
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch

import unidiff as ud
from unidiff.plot import Formula, Graph, save_graphs, save_samples

ENERGY = Formula(r"mean of $|\nabla x_t|^2/R$")
PROCESSES = {
    **{
        f"heat_{blur}_{name}": f"{{type: RenormalizedHeat, shape: [28, 28], blur_max: {blur}, noise: {noise}}}"
        for blur, (name, noise) in product((2, 4, 10, 20), (("white", "WhiteNoise"), ("data", "DataSpectrum")))
    },
    "vp": "{type: CosineVP}",
    "blurring": "{type: Blurring, shape: [28, 28], blur_max: 20, floor: 0.001}",
}
FULL = ["training.steps=40000", "training.batch=128", "backbone.width=64", "sampling.count=1000", "sampling.batch=250"]
TINY = [
    "data={type: Digits, size: 28}", "training.steps=3", "training.batch=8", "training.preview_every=0",
    "backbone={type: UNet, width: 8, multipliers: [1, 2], blocks: 1, patch: 2}", "sampling.count=24",
    "sampling.grid={type: ArcLength, steps: 8}", "training.tensorboard=false",
]  # fmt: skip


class Lines:
    """Tells how a run goes, a line for each tenth."""

    def notice(self, text: str) -> None:
        """What the user must see."""
        print(f"    {text}", flush=True)

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """How far a stage is."""
        if total >= 10 and done % (total // 10) == 0:
            print(f"    {stage} {done} of {total}" + (f", loss {loss:.4f}" if loss else ""), flush=True)


def main() -> None:
    """Train or load each, draw, print the table, draw the energy along the paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="two processes, three steps")
    parser.add_argument("--runs", type=Path, help="where the run directories are [default: OUT/heat_mnist]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = arguments.runs or arguments.out / "heat_mnist"
    chosen = ["heat_4_white", "vp"] if arguments.tiny else list(PROCESSES)
    lines, rows, drawn = [], [], []
    for name in chosen:
        directory = runs / name
        print(name, flush=True)
        # VP has no basis; the steps that fit the heat process fit it as well.
        overrides = [*(TINY if arguments.tiny else FULL), f"process={PROCESSES[name]}"]
        recipe = ud.load_recipe("heat_mnist_cpu", overrides)
        if not (directory / "samples" / "grid.png").exists():
            recipe.run(directory, Lines(), device=arguments.device, overwrite=directory.exists())
        run = ud.load(directory, device=arguments.device)
        solution = run.sample(keep=9)
        x, source = solution.x.cpu(), recipe.data.open("train")
        np.save(arguments.out / f"heat_mnist_{name}.npy", x.numpy())
        R = energy(source.batch(torch.arange(len(source))))
        energies = [energy(state.u.cpu()) / R for state in solution.path]
        lines.append((name, [state.t for state in solution.path], energies))
        test, known = recipe.data.open("test"), torch.arange(min(len(source), 5000))
        features = ud.evaluation.Discriminants.fit(source.batch(known), source.labels[known])
        distance = ud.evaluation.energy_distance(features(x), features(test.batch(torch.arange(min(len(test), 2000)))))
        rows.append((name, min(energies), max(energies), distance))
        drawn.append(x[:16])

    print("\n  run             gradient energy / R   energy distance of features")
    for name, low, high, distance in rows:
        print(f"  {name:15} {low:8.3f} to {high:.3f}     {distance.value:+.4f} +- {distance.error:.4f}")
    start = {name: energies[0] for name, _, energies in lines}
    # The claim that no network can spoil: the heat process starts with the gradient energy of digits, VP with that of
    # noise. 24 samples of 784 normal numbers spread by sqrt(2 / (24 * 784)) = 1 %, weighted by lambda a little more.
    assert all(abs(value - 1) < 0.1 for name, value in start.items() if name.startswith("heat"))
    assert start["vp"] > 2
    graph = Graph("Gradient energy on the way from t = 1 to 0", "t", ENERGY, lines)
    save_graphs(
        [graph], arguments.out / "heat_mnist_energy.png", Formula(r"$E|\nabla x_t|^2=R$ is kept by the heat process.")
    )
    save_samples(torch.cat(drawn), arguments.out / "heat_mnist.png", f"16 samples each of {', '.join(chosen)}.")


def energy(x: torch.Tensor) -> float:
    """Mean over images of |grad x|^2 = sum_k lambda_k x_k^2."""
    basis = ud.DCT(tuple(x.shape[-2:]))
    return float((basis.eigenvalues() * basis.forward(x.double()).square()).sum((1, 2, 3)).mean())


if __name__ == "__main__":
    main()
