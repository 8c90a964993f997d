"""Negative log-likelihoods beside each other: figure 4.1 of Sedykh's thesis, a table of Nichol & Dhariwal 2021.

Theirs has CIFAR-10 and ImageNet, where DDPM has 3.70 and 3.77 bits per dimension and improved DDPM 2.94 and 3.53. Ours
has a model of unidiff on the test split of its own data: the bound of its chain and the density of its flow, beside
what needs no network, a Gaussian that is fitted to the data, and 8 bits, which say nothing. Numbers of different data
or of different levels of grey do not compare.

    unidiff reproduce thesis-4.1
    python examples/papers/likelihoods.py --run runs/ddpm_digits
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.noise import generator_of
from unidiff.plot import COLOURS, new_figure, save_figure, style

LEVELS, WIDTH = 256, 2 / 255
PUBLISHED = {"DDPM": {"CIFAR-10": 3.70, "ImageNet 64": 3.77}, "improved DDPM": {"CIFAR-10": 2.94, "ImageNet 64": 3.53}}


def gaussian(train: Tensor, test: Tensor, seed: int) -> Tensor:
    """Bits per dimension of each test image under a Gaussian that is fitted to the data with noise over their bins."""
    generator = generator_of(seed)

    def filled(x: Tensor) -> Tensor:
        return x.flatten(1).double() + WIDTH * (torch.rand(x.flatten(1).shape, generator=generator) - 0.5)

    train, test = filled(train), filled(test)
    # Pixels that never change have no variance but the bin's; the covariance is regular all the same.
    fitted = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    return -(fitted.log_prob(test) / test.shape[1] + math.log(WIDTH)) / math.log(2)


@style()
def thesis_4_1(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Bits per dimension of test images, four ways."""
    test, count = model.data.open("test"), 8 if quick else 16
    rows = torch.randperm(len(test), generator=generator_of(seed))[:count]
    x, cond = test.batch(rows), model.own_conditions(rows, test)
    grid = ud.Uniform(1000) if model.process.native_times() is None else ud.Native()
    with model.arithmetic():
        bound = ud.variational_bound(model.denoiser, x, grid, levels=LEVELS, **cond)
        flow = ud.log_likelihood(
            model.denoiser, x, ud.Hutchinson(1), levels=LEVELS, rtol=1e-3 if quick else 1e-4, **cond
        )
    train = model.images(model.chosen(5000, seed))
    plain = gaussian(train, x, seed)
    bits = {
        "no model": (8.0, 0.0),
        "Gaussian fit": (float(plain.mean()), float(plain.std()) / count**0.5),
        "bound of the chain": (bound.bits.mean, bound.bits.standard_error),
        "flow": (flow.bits.mean, flow.bits.standard_error),
    }
    figure, (ax,) = new_figure(1, (5.4, 2.8))
    ax.barh(
        list(bits), [value for value, _ in bits.values()], xerr=[error for _, error in bits.values()], color=COLOURS[0]
    )
    for row, (value, error) in enumerate(bits.values()):
        ax.text(value / 2, row, f"{value:.2f}" + (f" ±{error:.2f}" if error else ""), va="center", color="white")
    ax.set(xlabel=f"bits per dimension of {count} test images", title=test.name)
    ax.invert_yaxis()
    save_figure(
        figure, path, f"Negative log-likelihoods, {LEVELS} levels of grey (in the place of Sedykh's figure 4.1)."
    )
    found = bits["bound of the chain"]
    gap = bits["Gaussian fit"][0] - found[0]
    return Findings(
        f"{found[0]:.2f} +- {found[1]:.2f} bits per dimension by the bound, {bits['flow'][0]:.2f} +- "
        f"{bits['flow'][1]:.2f} by the flow; a Gaussian fit {bits['Gaussian fit'][0]:.2f}",
        gap > 3 * math.hypot(found[1], bits["Gaussian fit"][1]),
        {
            "images": count,
            "levels": LEVELS,
            "bits_per_dim": {name: {"mean": mean, "standard_error": error} for name, (mean, error) in bits.items()},
            "published_bits_per_dim_of_other_data": PUBLISHED,
        },
        "The bound is below the Gaussian fit by more than three standard errors.",
    )


if __name__ == "__main__":
    main(__doc__, thesis_4_1)
