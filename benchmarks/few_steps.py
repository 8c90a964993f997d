"""Models of few steps on one teacher: Frechet distances at 1, 2, 4 and 8 evaluations, and what the training cost.

The teacher is the shipped NCSN of 8x8 digits. The students are runs of the recipes of few steps, trained here if they
are not in the folder, and a rectified flow, whose pairs of noise and sample the teacher's flow makes. The distance is
Frechet's in the features of the shipped network of digits, of 2,000 samples and the held-out images: it compares with
nothing outside this table.

    python benchmarks/few_steps.py --runs runs --out few_steps
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rows import machine

import unidiff as ud
from unidiff.evaluation import frechet_distance, load_features, real_data
from unidiff.plot import Curve, Panel, save_curves, save_table

TEACHER = "shipped:ncsn_digits"
DDIM = "DDIM on Trailing"
LIKE_DDIM = "DDIM on Tapered", "Restart of DDIM"  # whose curves lie on that of DDIM
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


def student(path: Path) -> System:
    """The run of a recipe, trained if it is missing. A run that was there has no processor seconds."""
    seconds = None
    if not path.exists():
        command = [sys.executable, "-m", "unidiff", "run", path.name, "--device", "cpu", "--out", str(path)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run = ud.load(path, device="cpu")
    sampling = getattr(run.recipe, "sampling", ud.Sampling())
    return System(run.denoiser, sampling.solver, ud.Trailing(), seconds)


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
        grid for grid in grids if grid is not None and ud.sample(system.model, system.solver, grid, seeds=1).nfe <= nfe
    )


def measured(system: System, count: int) -> dict[str, Any]:
    """The distance at each number of evaluations with its standard error, seconds, and samples of one evaluation."""
    network, real = load_features("digits"), real_data(ud.data.Digits(), count)
    reference = network.of(iter(real.reference)).values
    row: dict[str, Any] = {"seconds": system.seconds, "distance": [], "error": []}
    row["floor"] = frechet_distance(network.of(iter(real.floor)).values, reference).value
    for nfe in NFES:
        x = ud.sample(system.model, system.solver, affordable(system, nfe), seeds=count, batch=500).x.clamp(-1, 1)
        row.setdefault("x", x[:SHOWN].tolist())
        found = frechet_distance(network.of(x.split(500)).values, reference)
        row["distance"].append(found.value)
        row["error"].append(found.error)
    return row


def draw(rows: Mapping[str, Mapping[str, Any]], count: int, folder: Path) -> None:
    """The distances as a diagram, and samples of one evaluation."""
    curves = [
        Curve(name, name, list(NFES), row["distance"], row["error"])
        for name, row in rows.items()
        if name not in LIKE_DDIM
    ]
    floor = next(iter(rows.values()))["floor"]
    panel = Panel(f"{count} samples", "Frechet distance, digit features", curves, floor, "training images")
    save_curves([panel], "evaluations", folder / "few_steps.png", "Systems of few steps on one teacher.")
    chosen = [name for name in rows if name == DDIM or rows[name]["seconds"] is not None or name in NAMES.values()]
    cells = [[(torch.tensor(image)[None], "") for image in rows[name]["x"]] for name in chosen]
    caption = "One evaluation each, from the same seeds."
    save_table(cells, chosen, [""] * SHOWN, folder / "one_step.png", caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the students are, or are trained")
    parser.add_argument("--out", type=Path, default=Path("few_steps"), help="folder of the rows and the figures")
    parser.add_argument("--only", nargs="+", help="names of rows; others that the folder has are kept")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--reflow-steps", type=int, default=600)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher = ud.load(TEACHER, device="cpu").denoiser
    systems: dict[str, Callable[[], System]] = {
        DDIM: lambda: System(teacher, ud.DDIM(), ud.Trailing()),
        "DDIM on Tapered": lambda: System(teacher, ud.DDIM(), ud.Tapered()),
        "default solver": lambda: System(teacher, ud.ExponentialAdams(), ud.Tapered()),
        "Restart of DDIM": lambda: System(teacher, ud.Restart(ud.DDIM(), 0.3, 0.7, 1), ud.Trailing()),
        "SASolver": lambda: System(teacher, ud.SASolver(2, 0.4), ud.Tapered()),
        "MultistepConsistency": lambda: System(teacher, ud.MultistepConsistency(), ud.Trailing()),
        **{title: partial(student, arguments.runs / name) for name, title in NAMES.items()},
        "reflow": lambda: reflow(teacher, arguments.pairs, arguments.reflow_steps, arguments.out),
    }
    file = arguments.out / "rows.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in arguments.only or systems:
        found[name] = measured(systems[name](), arguments.samples)
        found = {name: found[name] for name in systems if name in found}
        file.write_text(json.dumps(found))
    print(machine())
    print("| system | " + " | ".join(map(str, NFES)) + " | CPU seconds of training |")
    print("|---" * (len(NFES) + 2) + "|")
    for name, row in found.items():
        cells = " | ".join(f"{value:.4f} ± {error:.4f}" for value, error in zip(row["distance"], row["error"]))
        print(f"| {name} | {cells} | {'' if row['seconds'] is None else format(row['seconds'], '.0f')} |")
    print(f"training images: {next(iter(found.values()))['floor']:.4f}")
    draw(found, arguments.samples, arguments.out)


if __name__ == "__main__":
    main()
