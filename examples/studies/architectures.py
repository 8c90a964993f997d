"""Which network is best on 8x8 digits at equal CPU seconds: a perceptron, a U-Net without or with attention, a DiT?

Each is trained for the steps that fit into the same CPU seconds, with the same batches, objective, schedule and rate of
learning. No network is tuned.

    python examples/studies/architectures.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import unidiff as ud
from unidiff.figures.study import Row, Study, Table, main, qualities, steps_in
from unidiff.plot import save_dots

DATA = ud.data.Digits()
NETWORKS: dict[str, Callable[[], ud.Backbone]] = {
    "MLP": lambda: ud.MLP(DATA.shape, width=128, depth=3),
    "U-Net": lambda: ud.UNet(DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4),
    "U-Net, attention": lambda: ud.UNet(DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4, attention=(4,)),
    "DiT": lambda: ud.DiT(DATA.shape, patch=2, width=64, depth=3, heads=4),
}


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """The networks, one after the other."""
    seconds, count, evaluations = (0.2, 40, 2) if quick else (30.0, 300, 20)
    samples, own = {}, {}
    for name, network in NETWORKS.items():

        def trained(steps: int, network: Callable[[], ud.Backbone] = network) -> ud.NeuralDenoiser:
            torch.manual_seed(seed)
            model = ud.NeuralDenoiser(ud.DDPM(), ud.V(), network())
            settings = ud.Training(steps, batch=32, lr=2e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
            return ud.train(model, DATA.open(), ud.Denoising(), settings, seed=seed)

        steps = steps_in(seconds, trained)
        model, seeds = trained(steps), range(count * seed, count * (seed + 1))
        samples[name] = ud.sample(model, ud.DDIM(), ud.Uniform(evaluations), DATA.shape, seeds).x
        own[name] = {"parameters": sum(weight.numel() for weight in model.backbone.parameters()), "steps": steps}
    for name, row in qualities(samples, DATA, seed).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})


def draw(table: Table, path: Path) -> None:
    """Distance, precision and recall of each network."""
    names = {"frechet": "Frechet distance", "precision": "precision", "recall": "recall"}
    dots = [table.dots(name, title, "real data") for name, title in names.items()]
    save_dots(dots, path, "Networks trained for equal CPU seconds on 8x8 digits. Dashed: real data.")


STUDY = Study(
    "architectures",
    "Which network is best on 8x8 digits at equal CPU seconds: a perceptron, a U-Net, one with attention, a DiT?",
    "slides of Sanchez Garcia & Soto Vicente 2024, architectures; Peebles & Xie 2023",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
