"""The designs of a DiT's blocks at equal processor seconds on 8x8 digits: the table of docs/systems/dit_blocks.md.

The four designs of Peebles & Xie (2023, figure 5), adaLN-single (Chen et al. 2023), and adaLN-zero with linear
attention (Xie et al. 2024). Each network is conditioned on the class and trained for the steps that fit into the same
processor seconds; the same batches, objective, schedule and rate of learning for all, tuned for none. The seconds of a
step are measured first, the designs in turn. Distances are in the features of the shipped network of digits.
Differences from adaLN-zero are of the same seed, so that what its batches and noise contribute to both is left out.

    python benchmarks/dit_blocks.py --out dit_blocks
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rows import machine

import unidiff as ud
from unidiff.evaluation import load_features
from unidiff.evaluation.scores import shown
from unidiff.figures.study import Row, Table, qualities
from unidiff.plot import save_dots

DATA = ud.data.Digits()
DESIGNS: dict[str, dict[str, object]] = {
    "in-context": {"block": ud.InContext()},
    "cross-attention": {"block": ud.CrossAttended()},
    "adaLN": {"block": ud.AdaLN()},
    "adaLN-zero": {"block": ud.AdaLNZero()},
    "adaLN-single": {"block": ud.AdaLNSingle()},
    "adaLN-zero, linear attention": {"attention": ud.LinearAttention()},
}
BASE = "adaLN-zero"
SETTINGS = {"patch": 2, "width": 64, "depth": 3, "heads": 4, "classes": 10}


def trained(design: str, steps: int, seed: int) -> ud.NeuralDenoiser:
    """A network of this design that has been trained."""
    torch.manual_seed(seed)
    model = ud.NeuralDenoiser(ud.DDPM(), ud.V(), ud.DiT(DATA.shape, **SETTINGS, **DESIGNS[design]))  # type: ignore[arg-type]
    settings = ud.Training(steps, batch=32, lr=2e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
    return ud.train(model, DATA.open(), ud.Denoising(), settings, seed=seed, conditioning=ud.Labels(0.1))


def seconds_of_a_step(rounds: int, steps: int) -> dict[str, float]:
    """Processor seconds of a training step: medians over rounds, the designs in turn, after one that warms up."""
    spent: dict[str, list[float]] = {design: [] for design in DESIGNS}
    for _ in range(rounds + 1):
        for design, found in spent.items():
            start = time.process_time()
            trained(design, steps, 0)
            found.append((time.process_time() - start) / steps)
    return {design: statistics.median(found[1:]) for design, found in spent.items()}


def rows(seed: int, steps: dict[str, int], count: int, evaluations: int) -> Iterator[Row]:
    """Qualities of the samples of each design, and of real data."""
    label = torch.arange(count) % 10
    samples, own, network = {}, {}, load_features("digits")
    for design in DESIGNS:
        start = time.process_time()
        model = trained(design, steps[design], seed)
        spent = time.process_time() - start
        seeds = range(count * seed, count * (seed + 1))
        x = ud.sample(model, ud.DDIM(), ud.Uniform(evaluations), seeds=seeds, batch=500, label=label).x
        samples[design] = x
        probabilities = network(x.clamp(-1, 1)).probabilities
        assert probabilities is not None  # a shipped network classifies
        right = float((probabilities.argmax(1) == label).double().mean())
        weights = sum(weight.numel() for weight in model.backbone.parameters())
        own[design] = {"class right": right, "steps": steps[design], "seconds": spent, "weights": weights}
    for name, row in qualities(samples, DATA, seed, ("frechet", "precision", "recall")).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})


def against_base(table: Table) -> str:
    """Differences of the Frechet distances from the base, seed by seed: mean +- standard error."""
    base, lines = table.values[BASE]["frechet"], []
    for design in (design for design in DESIGNS if design != BASE):
        differences = Table()
        for one, other in zip(table.values[design]["frechet"], base):
            differences.add(Row(design, {"difference": one - other}))
        lines.append(f"{design} - {BASE}: {shown(differences.estimate(design, 'difference'))}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25.0, help="processor seconds of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a training of each design for each")
    parser.add_argument("--count", type=int, default=500, help="samples of each")
    parser.add_argument("--evaluations", type=int, default=20, help="of DDIM, for each sample")
    parser.add_argument("--trial", type=int, default=20, help="steps of a measurement of the seconds of a step")
    parser.add_argument("--out", type=Path, default=Path("dit_blocks"), help="folder of the figure")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    steps = {d: max(1, round(options.seconds / s)) for d, s in seconds_of_a_step(3, options.trial).items()}
    table = Table()
    for seed in options.seeds:
        for row in rows(seed, steps, options.count, options.evaluations):
            table.add(row)
        print(f"seed {seed}: {time.process_time() - begun:.0f} processor s so far", file=sys.stderr, flush=True)
    print(table.text())
    print(against_base(table))
    print(f"{machine()}, {time.process_time() - begun:.0f} processor s")
    names = {"frechet": "Frechet distance", "class right": "share of the class asked for"}
    dots = [table.dots(name, title, "real data" * (name == "frechet")) for name, title in names.items()]
    save_dots(dots, options.out / "dit_blocks.png", f"Means of {len(options.seeds)} trainings. Dashed: real digits.")


if __name__ == "__main__":
    main()
