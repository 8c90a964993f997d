"""Models of few steps on one teacher: Frechet distances at 1, 2, 4 and 8 evaluations, and what the training cost.

The teacher is the shipped NCSN of 8x8 digits. The students are runs of the recipes of few steps, trained here if they
are not in the folder, and a rectified flow, whose pairs of noise and sample the teacher's flow makes. The distance is
Frechet's in the features of the shipped network of digits, of 2,000 samples and the held-out images: it compares with
nothing outside this table.

    python benchmarks/few_steps.py --runs runs --out few_steps
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rows import machine
from torch import Tensor

import unidiff as ud
from unidiff.evaluation import frechet_distance, load_features, real_data
from unidiff.evaluation.distances import Estimate
from unidiff.plot import Curve, Panel, save_curves, save_table

TEACHER = "shipped:ncsn_digits"
NFES = 1, 2, 4, 8
SHOWN = 8  # samples of each system in the picture
NAMES = {
    "distilled_digits": "progressive distillation",
    "consistency_digits": "consistency distillation",
    "consistency_training_digits": "consistency training",
}


class System(NamedTuple):
    """A model with the sampler it is for, and the processor seconds of its training; None if it was not trained."""

    model: ud.Denoiser
    solver: ud.Solver
    grid: ud.Grid
    seconds: float | None = None


def students(folder: Path) -> dict[str, System]:
    """The runs of the recipes, trained where they are missing. A run that was there has no processor seconds."""
    found = {}
    for name, title in NAMES.items():
        seconds = None
        if not (folder / name).exists():
            command = [sys.executable, "-m", "unidiff", "run", name, "--device", "cpu", "--out", str(folder / name)]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        run = ud.load(folder / name)
        found[title] = System(run.denoiser, run.recipe.sampling.solver, ud.Trailing(), seconds)
    return found


def reflow(teacher: ud.Denoiser, count: int, steps: int, folder: Path) -> System:
    """A straight flow from noise to the samples that the teacher makes of it (Liu et al. 2022, section 2.1)."""
    begin = time.process_time()
    seeds = range(10_000, 10_000 + count)  # other noise than that of the samples that are judged
    x = ud.sample(teacher, grid=ud.Tapered(16), seeds=seeds, batch=500).x
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path := folder / "noise.npy", ud.Seeded(seeds)(x).numpy())
    torch.manual_seed(0)
    network = ud.UNet(x.shape[1:], width=32, multipliers=(1, 2), blocks=1, groups=8, patch=2)
    model = ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), network)
    settings = ud.Training(steps=steps, batch=64, lr=3e-3, warmup=50, ema=0.98, precision="fp32", tensorboard=False)
    pairs = ud.TensorSource(x, "samples of the teacher")
    student = ud.train(model, pairs, ud.Denoising(coupling=ud.Pairs(str(path))), settings)
    return System(student, ud.Euler(), ud.Trailing(), time.process_time() - begin)


def affordable(system: System, nfe: int) -> ud.Grid:
    """The grid of most steps with which the solver takes at most so many evaluations."""
    grids = (system.grid.with_steps(steps) for steps in range(nfe, 0, -1))
    return next(
        grid
        for grid in grids
        if grid is not None and ud.sample(system.model, system.solver, grid, seeds=1).nfe <= nfe
    )


def measured(
    systems: Mapping[str, System], count: int, nfes: Sequence[int]
) -> tuple[dict[str, dict[int, Estimate]], dict[str, Tensor], float]:
    """The distance of each system at each number of evaluations, its samples at the first, and that of real images."""
    network, real = load_features("digits"), real_data(ud.data.Digits(), count)
    reference = network.of(iter(real.reference)).values
    floor = frechet_distance(network.of(iter(real.floor)).values, reference).value
    table: dict[str, dict[int, Estimate]] = {}
    shown: dict[str, Tensor] = {}
    for name, system in systems.items():
        row = table.setdefault(name, {})
        for nfe in nfes:
            grid = affordable(system, nfe)
            x = ud.sample(system.model, system.solver, grid, seeds=count, batch=500).x.clamp(-1, 1)
            shown.setdefault(name, x[:SHOWN])
            row[nfe] = frechet_distance(network.of(x.split(500)).values, reference)
        cost = "" if system.seconds is None else f"{system.seconds:.0f}"
        cells = " | ".join(f"{value.value:.4f} ± {value.error:.4f}" for value in row.values())
        print(f"| {name} | {cells} | {cost} |", flush=True)
    return table, shown, floor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the students are, or are trained")
    parser.add_argument("--out", type=Path, default=Path("few_steps"), help="folder of the figures")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--reflow-steps", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher = ud.load(TEACHER, device="cpu").denoiser
    systems = {
        "DDIM, Trailing": System(teacher, ud.DDIM(), ud.Trailing()),
        "DDIM, Tapered": System(teacher, ud.DDIM(), ud.Tapered()),
        "default solver": System(teacher, ud.ExponentialAdams(), ud.Tapered()),
        "Restart": System(teacher, ud.Restart(ud.DDIM(), 0.3, 0.7, 1), ud.Trailing()),
        "SASolver": System(teacher, ud.SASolver(2, 0.4), ud.Tapered()),
        "MultistepConsistency": System(teacher, ud.MultistepConsistency(), ud.Trailing()),
        **students(arguments.runs),
        "reflow": reflow(teacher, arguments.pairs, arguments.reflow_steps, arguments.out),
    }
    print(machine())
    print("| system | " + " | ".join(map(str, NFES)) + " | CPU seconds of training |")
    print("|---" * (len(NFES) + 2) + "|")
    table, shown, floor = measured(systems, arguments.samples, NFES)
    print(f"floor: {floor:.4f} of training images")
    curves = [
        Curve(name, name, list(row), [value.value for value in row.values()], [value.error for value in row.values()])
        for name, row in table.items()
    ]
    panel = Panel(f"{arguments.samples} samples", "Frechet distance, digit features", curves, floor, "training images")
    save_curves([panel], "evaluations", arguments.out / "few_steps.png", "Systems of few steps on one teacher.")
    chosen = ["DDIM, Trailing", *list(systems)[-len(NAMES) - 1 :]]
    cells = [[(image[None], "") for image in shown[name]] for name in chosen]
    save_table(cells, chosen, [""] * SHOWN, arguments.out / "one_step.png", "One evaluation each, from the same noise.")


if __name__ == "__main__":
    main()
