"""Does attention hurt on MNIST? Sedykh's thesis leaves it out, by the look of samples; here with several seeds.

A small U-Net on patches of 2 x 2 pixels, with or without self-attention between the 7 x 7 positions of its lower level,
each trained for the steps that fit into the same CPU seconds. Needs MNIST in $UNIDIFF_DATA.

    python examples/studies/attention_mnist.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

import unidiff as ud
from unidiff.evaluation import real_data
from unidiff.figures.study import Row, Study, Table, main, qualities, steps_in
from unidiff.plot import save_dots

DATA = ud.data.MNIST()
NETWORKS: dict[str, tuple[int, ...]] = {"without attention": (), "with attention": (7,)}


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """Without and with attention."""
    seconds, count, evaluations = (0.2, 40, 2) if quick else (120.0, 300, 20)
    samples, own = {}, {}
    source = DATA.open()
    for name, attention in NETWORKS.items():

        def trained(steps: int, attention: tuple[int, ...] = attention) -> ud.NeuralDenoiser:
            torch.manual_seed(seed)
            network = ud.UNet(
                DATA.shape, width=16, multipliers=(1, 2), blocks=1, groups=4, patch=2, attention=attention
            )
            model = ud.NeuralDenoiser(ud.DDPM(), ud.V(), network)
            settings = ud.Training(steps, batch=32, lr=2e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
            return ud.train(model, source, ud.Denoising(), settings, seed=seed)

        steps = steps_in(seconds, trained)
        model, seeds = trained(steps), range(count * seed, count * (seed + 1))
        samples[name] = ud.sample(model, ud.DDIM(), ud.Uniform(evaluations), DATA.shape, seeds).x
        own[name] = {"parameters": sum(weight.numel() for weight in model.backbone.parameters()), "steps": steps}
    # No copies of 60,000 images are to be feared, and looking for them takes longer than all other measures.
    real = replace(real_data(DATA, count, most=2000, seed=seed), train=None)
    for name, row in qualities(samples, real, seed).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})


def draw(table: Table, path: Path) -> None:
    """Distance, precision and recall, without and with attention."""
    names = {"frechet": "Frechet distance", "precision": "precision", "recall": "recall"}
    dots = [table.dots(name, title, "real data") for name, title in names.items()]
    save_dots(dots, path, "U-Nets trained for equal CPU seconds on MNIST. Dashed: real data.")


STUDY = Study(
    "attention_mnist",
    "Does attention hurt on MNIST, at equal CPU seconds?",
    "Sedykh's thesis, chapter 6",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
