"""Optimisers at equal steps: the table of docs/optimizers.md.

Each trains the network of recipes/ddpm_digits.yaml from the same weights, on the same batches and noise. The loss is
that of the averaged weights on the test digits, with the same 16 times and noises of each; seconds are those of the
processor in training.

python benchmarks/optimizers.py --steps 600
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch

import unidiff as ud

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--only", default="", help="names, separated by commas; all by default")
options = parser.parse_args()

# The learning rate of the recipe, but for the relative one of Adafactor, which is the published one.
OPTIMIZERS = {
    "AdamW": (ud.AdamW(), 2e-3),
    "Muon": (ud.Muon(), 2e-3),
    "Adafactor": (ud.Adafactor(), 1e-2),
    "ScheduleFree": (ud.ScheduleFree(), 2e-3),
}
chosen = options.only.split(",") if options.only else [*OPTIMIZERS]
recipe: Any = ud.load_recipe("ddpm_digits", [f"training.steps={options.steps}"])
source, held_back = recipe.data.open(), recipe.data.open("test")
digits = held_back.batch(torch.arange(len(held_back))).repeat(16, 1, 1, 1)
times = (torch.arange(len(digits), dtype=torch.float64) + 0.5) / len(digits)
times = times[torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))]
noise = torch.randn(digits.shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def loss(model: ud.NeuralDenoiser) -> float:
    """The mean loss on the test digits."""
    parts = (recipe.loss().batch_losses(model, *rows) for rows in zip(*(x.split(512) for x in (digits, times, noise))))
    return float(torch.cat([*parts]).double().mean())


print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, {options.steps} steps")
print("optimiser        lr  test loss  training loss  seconds")
for name in chosen:
    optimizer, lr = OPTIMIZERS[name]
    torch.manual_seed(recipe.seed)
    model = recipe.model({})
    settings = replace(recipe.training, optimizer=optimizer, lr=lr, log_every=100)
    losses: list[float | None] = []

    def record(now: Any, losses: list[float | None] = losses) -> None:
        losses.append(now.loss)

    begun = time.process_time()
    trained = ud.train(model, source, recipe.loss(), settings, on_step=record)
    seconds = time.process_time() - begun
    print(f"{name:12s} {lr:.4f} {loss(trained):10.5f} {losses[-1]:14.5f} {seconds:8.1f}", flush=True)
