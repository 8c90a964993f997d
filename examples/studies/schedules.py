"""Which noise schedule is best for 8x8 digits: linear, cosine or sigmoid?

The same network, steps, seeds and objective (L_simple) with three schedules of T = 200; samples of the whole chain, and
the variational bound along it with the decoder of published numbers.

    python examples/studies/schedules.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import unidiff as ud
from unidiff.figures.study import Row, Study, Table, main, qualities
from unidiff.plot import save_dots

DATA = ud.data.Digits()
T, LEVELS = 200, 17  # the digits have 17 grey values
SCHEDULES = {
    "linear": ud.Linear(1e-4 * 1000 / T, 0.02 * 1000 / T),  # Ho et al. 2020, for T = 1000
    "cosine": ud.Cosine(),
    "sigmoid": ud.Sigmoid(),
}


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """The schedules, one after the other."""
    steps, count, bits = (20, 40, 4) if quick else (600, 200, 150)
    test = DATA.open("test").batch(torch.arange(bits))
    samples, own = {}, {}
    for name, schedule in SCHEDULES.items():
        torch.manual_seed(seed)
        model = ud.NeuralDenoiser(ud.DDPM(T, schedule), ud.V(), ud.MLP(DATA.shape, width=128, depth=3))
        settings = ud.Training(steps, batch=64, lr=3e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
        model = ud.train(model, DATA.open(), ud.Denoising(ud.EpsilonWeighting()), settings, seed=seed)
        grid = ud.Uniform(20) if quick else ud.Native()
        samples[name] = ud.sample(model, ud.Ancestral(), grid, DATA.shape, range(count * seed, count * (seed + 1))).x
        published = {"variance": 1.0, "decoder_variance": 0.0}  # of Ho et al. 2020, table 2
        bound = ud.variational_bound(model, test, grid, levels=LEVELS, batch=1000, **published)
        own[name] = {"bits/dim": bound.bits.mean}
    for name, row in qualities(samples, DATA, seed).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})


def draw(table: Table, path: Path) -> None:
    """Distance and bits of each schedule."""
    dots = [table.dots("frechet", "Frechet distance", "real data"), table.dots("bits/dim", "bits per dimension, bound")]
    save_dots(dots, path, f"Networks trained alike on three schedules of T = {T}. Dashed: real data.")


STUDY = Study(
    "schedules",
    "Which noise schedule is best for 8x8 digits at equal steps: linear, cosine or sigmoid?",
    "Nichol & Dhariwal 2021, section 3.2; slides of Sanchez Garcia & Soto Vicente 2024, noise schedulers",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
