"""Gradient energy of a trained run's states on their way from noise to images, in units of that of the data.

For RenormalizedHeat it should stay at 1: E |grad u_t|^2 = R. For a DDPM it falls from that of white noise.

    python benchmarks/gradient_energy.py runs/heat_mnist_cpu --count 200
    python benchmarks/gradient_energy.py runs/ddpm_mnist_cpu --set "sampling.grid={type: Uniform, steps: 250}"

The data are the run's own training images; the run's `sampling` section says how it draws, changed by --set as in
`unidiff sample`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

import unidiff as ud


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--states", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = ud.load(arguments.run, [*arguments.overrides, f"sampling.count={arguments.count}"])
    basis = ud.DCT(run.recipe.data.shape[-2:])
    weight = basis.eigenvalues()

    def energy(x: torch.Tensor) -> torch.Tensor:
        return (weight * basis.forward(x.double()).square()).flatten(1).sum(1)

    source = run.recipe.data.open()
    R = sum(float(energy(source.batch(part)).sum()) for part in torch.arange(len(source)).split(1000)) / len(source)
    solution = run.sample(keep=arguments.states)
    print(f"R = {R:.2f}; {run.recipe.sampling.solver!r}, {solution.nfe} evaluations, {arguments.count} samples")
    for state in solution.path[:-1]:
        print(f"  t = {state.t:.3f}   {float(energy(state.u).mean()) / R:.3f}")
    samples = energy(solution.x) / R
    print(f"  samples     {float(samples.mean()):.3f} +- {float(samples.std()) / math.sqrt(len(samples)):.3f}")


if __name__ == "__main__":
    main()
