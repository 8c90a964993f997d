"""ControlNet on digits: how well samples follow the edges that they are to have, and how sure a classifier is of them.

The run is that of the recipe control_digits, trained here if it is missing: a control branch beside the shipped
class-conditional DDPM of 8x8 digits, trained on the edges of the training digits. Here it sees those of the test
digits. The edges of a sample are compared with them pixel by pixel: the overlap is the intersection over the union, and
the agreement is Cohen's kappa (Cohen 1960), 1 for the same edges and 0 for edges that agree no more than their
frequencies make likely. The confidence is the probability that the shipped feature network gives to the digit whose
edges they are. Base and run draw from the same seeds, without a label and with that of the digit. A table of the scale
of the branch follows, of which 0 is the base.

    python benchmarks/control.py --run runs/control_digits --out control
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from rows import machine
from torch import Tensor

import unidiff as ud
from unidiff.backbone.control import Controlled
from unidiff.evaluation import load_features
from unidiff.plot import save_table

BASE, CLASSES = "shipped:ddpm_digits_classes", 10


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of edges, (B, ...) in {-1, 1}; (B,)."""
    a, b = (edges.flatten(1) > 0 for edges in (a, b))
    return (a & b).sum(1).double() / (a | b).sum(1).clamp(min=1)


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """Cohen's kappa of edges, (B, ...) in {-1, 1}; (B,)."""
    a, b = (edges.flatten(1).double() for edges in (a, b))
    same, p, q = (a == b).double().mean(1), (a.mean(1) + 1) / 2, (b.mean(1) + 1) / 2
    chance = p * q + (1 - p) * (1 - q)
    return (same - chance) / (1 - chance).clamp(min=1e-9)


def mean(values: Tensor) -> str:
    """The mean, with its standard error."""
    return f"{float(values.mean()):.3f} ± {float(values.double().std()) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/control_digits"), help="the run, trained if missing")
    parser.add_argument("--out", type=Path, default=Path("control"), help="folder of the figure")
    parser.add_argument("--samples", type=int, default=297, help="of as many test digits")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.run.exists():
        command = [sys.executable, "-m", "unidiff", "run", "control_digits", "--device", "cpu", "--out", arguments.run]
        subprocess.run(list(map(str, command)), check=True)
    run, base = ud.load(arguments.run, device="cpu").denoiser, ud.load(BASE, device="cpu").denoiser
    conditioning = getattr(ud.load_recipe(arguments.run / "recipe.yaml"), "control")  # noqa: B009 (of any kind)
    data, judge = ud.data.Digits().open("test"), load_features("digits")
    assert data.labels is not None
    rows = torch.arange(min(arguments.samples, len(data)))
    truth, digit = data.batch(rows), data.labels[rows]
    none = torch.full_like(digit, -1)

    def edges_of(x: Tensor) -> Tensor:
        edges: Tensor = conditioning.measure(x.clamp(-1, 1), x[:, :0])
        return edges

    image = edges_of(truth)

    def drawn(model: ud.Denoiser, label: Tensor, **cond: Tensor) -> Tensor:
        return ud.sample(model, ud.DDIM(), ud.Trailing(25), seeds=len(rows), batch=500, label=label, **cond).x

    def row(x: Tensor) -> str:
        found, sure = edges_of(x), judge(x.clamp(-1, 1)).probabilities[rows, digit]
        return " | ".join(map(mean, (overlap(found, image), agreement(found, image), sure)))

    print(machine())
    print("| | overlap of edges | agreement of edges | confidence of the digit |")
    print("|---" * 4 + "|")
    print(f"| test digits | {row(truth)} |")
    other = (digit + 1) % CLASSES
    samples = {
        "base, no label": drawn(base, none),
        "control, no label": drawn(run, none, image=image),
        "base, its label": drawn(base, digit),
        "control, its label": drawn(run, digit, image=image),
        "control, the label of another digit": drawn(run, other, image=image),
    }
    for name, x in samples.items():
        print(f"| {name} | {row(x)} |")
    print("\n| scale, no label | overlap of edges | agreement of edges | confidence of the digit |")
    print("|---" * 4 + "|")
    for scale in (0.0, 0.5, 1.5):
        network = Controlled(run.backbone.network, [*run.backbone.branches], [scale])
        scaled = ud.NeuralDenoiser(run.process, run.parameterization, network, run.noise_condition)
        print(f"| {scale:g} | {row(drawn(scaled, none, image=image))} |")

    shown = torch.cat([(digit == d).nonzero()[:1, 0] for d in range(CLASSES)]).tolist()
    cells = [truth, image, samples["base, no label"], samples["control, no label"], samples["control, its label"]]
    names = ["test digit", "its edges", "base", "control", "control and label"]
    table = [[(x[i : i + 1], "") for i in shown] for x in cells]
    titles = [str(int(digit[i])) for i in shown]
    save_table(table, names, titles, arguments.out / "control.png", "Base and control from the same seeds.")


if __name__ == "__main__":
    main()
