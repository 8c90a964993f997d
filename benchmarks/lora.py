"""LoRA on one class: the slant of its samples and of the others, and how sure a classifier is of each.

The run is that of the recipe lora_digits, trained here if it is missing: changes of low rank in the shipped
class-conditional DDPM of 8x8 digits, trained on sheared images of one digit. The slant is the slope of the ink by its
moments, cov(column, row) / var(row). The confidence is the probability that the shipped feature network of digits
gives to the class that was asked for. Base and run draw from the same seeds.

With `--prior N` a run that is trained here sees also N samples of the base of each other digit, as many in all as the
sheared images repeated (prior preservation, Ruiz et al. 2023, section 3.3).

    python benchmarks/lora.py --run runs/lora_digits --out lora
    python benchmarks/lora.py --run runs/lora_digits_prior --out lora_prior --prior 50
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from rows import machine

import unidiff as ud
from unidiff.data.sheared import slant
from unidiff.evaluation import load_features
from unidiff.plot import save_table

BASE = "shipped:ddpm_digits_classes"
CLASSES = 10


def prior_data(folder: Path, count: int) -> str:
    """Write samples of the base of the other digits, and the data of both as a change of the recipe."""
    base, data = ud.load(BASE, device="cpu"), getattr(ud.load_recipe("lora_digits"), "data")  # noqa: B009
    label = torch.tensor([d for d in range(CLASSES) if d not in data.only]).repeat(count)
    seeds = range(10**6, 10**6 + len(label))  # others than those of the samples below
    x = ud.sample(base.denoiser, ud.DDIM(), ud.Trailing(25), seeds=seeds, batch=500, label=label).x
    paths = [folder / name for name in ("prior.npy", "prior_labels.npy")]
    for path, values in zip(paths, (x.clamp(-1, 1), label)):
        np.save(path, values.numpy())
    samples, labels = (json.dumps(str(path.absolute())) for path in paths)
    parts = [f"{{type: ShearedDigits, shear: {data.shear}, only: {list(data.only)}}}"]
    parts.append(f"{{type: ArrayFile, path: {samples}, labels: {labels}, layout: NCHW}}")
    repeats = max(1, round(len(label) / len(data.open())))
    return f"data={{type: Concatenated, parts: [{', '.join(parts)}], repeats: [{repeats}, 1]}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/lora_digits"), help="the run, trained if it is missing")
    parser.add_argument("--out", type=Path, default=Path("lora"), help="folder of the figure")
    parser.add_argument("--samples", type=int, default=200, help="of each digit")
    parser.add_argument("--prior", type=int, default=0, help="samples of the base of each other digit in the training")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.run.exists():
        command = [sys.executable, "-m", "unidiff", "run", "lora_digits", "--device", "cpu", "--out", arguments.run]
        command += ["--set", prior_data(arguments.out, arguments.prior)] if arguments.prior else []
        subprocess.run(list(map(str, command)), check=True)
    run, base = ud.load(arguments.run, device="cpu"), ud.load(BASE, device="cpu")
    data = getattr(run.recipe, "data")  # noqa: B009 (of a recipe of any kind)
    data = getattr(data, "parts", (data,))[0]  # without the samples of the base
    upright, network = ud.data.Digits().open(), load_features("digits")
    labels = torch.arange(CLASSES).repeat_interleave(arguments.samples)
    drawn = [
        ud.sample(model.denoiser, ud.DDIM(), ud.Trailing(25), seeds=len(labels), batch=500, label=labels).x
        for model in (base, run)
    ]
    probabilities = [network(x.clamp(-1, 1)).probabilities for x in drawn]
    sure = [p[torch.arange(len(labels)), labels] for p in probabilities]

    tuned = torch.isin(labels, torch.tensor(data.only or range(CLASSES)))
    print(machine())
    print("| digit | slant of the data | base | LoRA | confidence of the base | LoRA |")
    print("|---" * 6 + "|")
    for digit in range(CLASSES):
        rows = labels == digit
        assert upright.labels is not None
        own = upright.batch((upright.labels == digit).nonzero()[:, 0])
        slants = " | ".join(f"{slant(x):+.3f}" for x in (own, *(x[rows] for x in drawn)))
        print(f"| {digit} | {slants} | " + " | ".join(f"{float(s[rows].mean()):.3f}" for s in sure) + " |")
    print(f"slant of the data of the run: {slant(data.open().values):+.3f}")
    if not bool(tuned.all()):
        means = [float(s[~tuned].mean()) for s in sure]
        difference = (sure[1] - sure[0])[~tuned].double()
        error = float(difference.std()) / len(difference) ** 0.5
        print(
            f"confidence of the other digits: {means[0]:.3f} {means[1]:.3f}, {means[1] - means[0]:+.3f} ± {error:.3f}"
        )
        print(f"slant of the other digits: {slant(drawn[0][~tuned]):+.3f} {slant(drawn[1][~tuned]):+.3f}")
    # Two samples of each digit, the base above.
    shown = torch.cat([(labels == d).nonzero()[:2, 0] for d in range(CLASSES)])
    cells = [[(x[i : i + 1], "") for i in shown.tolist()] for x in drawn]
    titles = [str(int(labels[i])) for i in shown.tolist()]
    save_table(cells, ["base", "LoRA"], titles, arguments.out / "lora.png", "The same seeds before and after.")


if __name__ == "__main__":
    main()
