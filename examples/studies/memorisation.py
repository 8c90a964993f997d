"""Does a small data set, or one image repeated in it, lead to copies?

Equal steps on more and more images. The memorisation ratio is the mean distance from samples to the nearest training
image, divided by that from held-out images: near 0 for copies, 1 for other images of the same kind, above 1 for noise.
A sample is called a copy if it is less than a third as far from its nearest training image as from the second nearest,
the criterion of Yoon et al. 2023. Then one of 512 images is repeated: its share of the samples, by the nearest of the
different images, beside its share of the data.

    python examples/studies/memorisation.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.evaluation import real_data
from unidiff.figures.study import Row, Study, Table, main, qualities
from unidiff.plot import save_dots

DATA = ud.data.Digits()
SIZES = (8, 64, 1500)  # different images
REPEATED = (64, 512)  # how often the first of 512 images is there
DIFFERENT = 512
COPY = 1 / 3  # Yoon et al. 2023


def two_nearest(x: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Which image is the nearest, (N,), and its distance as a fraction of that of the second nearest, (N,)."""
    distance, rows = torch.cdist(x.flatten(1).double(), images.flatten(1).double()).topk(2, largest=False)
    return rows[:, 0], distance[:, 0] / distance[:, 1]


def share_of_data(times: int, different: int) -> float:
    """Share of one image that is there so many times, among different images."""
    return times / (different - 1 + times)


def samples(images: Tensor, steps: int, count: int, seed: int) -> Tensor:
    """Samples of a network that was trained on these images."""
    torch.manual_seed(seed)
    model = ud.NeuralDenoiser(ud.DDPM(), ud.X0(), ud.MLP(DATA.shape, width=128, depth=3))
    settings = ud.Training(steps, batch=64, lr=3e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
    model = ud.train(model, images, ud.Denoising(), settings, seed=seed)
    return ud.sample(model, ud.DDIM(), ud.Uniform(50), DATA.shape, range(count * seed, count * (seed + 1))).x


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """Data sets of several sizes, then one image that is repeated."""
    steps, count = (20, 40) if quick else (500, 300)
    sizes, repeated = ((8, 32), (512,)) if quick else (SIZES, REPEATED)
    source = DATA.open()
    images = source.batch(torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)))
    real = real_data(DATA, count, seed=seed)
    for size in sizes:
        own = images[:size]
        x = samples(own, steps, count, seed)
        copies = float((two_nearest(x, own)[1] < COPY).double().mean())
        known = replace(real, train=ud.TensorSource(own, f"{size} images"))
        _, numbers, facts = qualities({"": x}, known, seed, ("memorization", "recall", "frechet"))[""]
        yield Row(f"{size} images", {"copies": copies, **numbers}, facts)
    different = images[:DIFFERENT]
    for times in repeated:
        own = torch.cat([different, different[:1].expand(times - 1, *DATA.shape)])
        rows, ratio = two_nearest(samples(own, steps, count, seed), different)
        share, copy = rows == 0, (rows == 0) & (ratio < COPY)
        numbers = {
            "share of the data": share_of_data(times, DIFFERENT),
            "share of samples": float(share.double().mean()),
        }
        yield Row(f"one image {times} times", {**numbers, "copies of it": float(copy.double().mean())})


def draw(table: Table, path: Path) -> None:
    """Ratio and copies of each size, and what share of the samples is nearest to the repeated image."""
    shares = table.dots("share of samples", "its share of the samples")
    of_data = [table.estimate(row, "share of the data").value for row, _, _ in shares.cases]
    cases = [(f"{row},\n{own:.0%} of the data", *rest) for (row, *rest), own in zip(shares.cases, of_data)]
    ratio = table.dots("memorization", "memorisation ratio")._replace(floor=1.0)
    dots = [ratio, table.dots("copies", "share of copies"), shares._replace(cases=cases)]
    save_dots(
        dots,
        path,
        "Networks trained for equal steps on N digits, and on 512 of which one is repeated. Dashed: other images.",
    )


STUDY = Study(
    "memorisation",
    "Does a small data set, or one image repeated in it, lead to copies?",
    "Higham, Higham & Grindrod 2023, on Carlini et al. 2023 and Somepalli et al. 2023",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
