"""The same noise, denoised nine times: figures 5 and 6 of Higham, Higham & Grindrod.

The denoising process is stochastic: from one noise it reaches many digits. And it is unpredictable: let a
training image be noised to the end of the forward process, and what comes back has nothing to do with it. Both follow
from alpha(1) being almost 0, and both end where the forward process is stopped early: from t = 0.1 the nine images
are the training image again, because alpha is still large there.

Any run that generates images will do, of whatever size, classes or codec; `exact:digits` is the optimum for the digits
of scikit-learn, whose images are those of the data, by construction.

    unidiff reproduce higham-5 higham-6
    python examples/papers/nine_denoisings.py --run runs/ddpm_digits
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from unidiff.evaluation.memorization import nearest
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.noise import generator_of
from unidiff.plot import save_table

NINE = 9


def nine(model: ImageModel, u: Tensor, t: float, quick: bool, first_seed: int, **cond: Tensor) -> Tensor:
    """Nine stochastic chains from one state at time t; only their noise differs."""
    rows = {name: value.expand(NINE, *value.shape[1:]) for name, value in cond.items()}
    seeds = range(first_seed, first_seed + NINE)
    return model.denoised(u.expand(NINE, *u.shape[1:]), t, quick, seeds, **rows)


def noisy_image(model: ImageModel, u: Tensor) -> Tensor:
    """A noisy state as an image: its pixels, decoded, within [-1, 1]."""
    pixels = model.data.decode(model.process.basis.inverse(u).float())
    return pixels / pixels.abs().quantile(0.99).clamp(min=1)


def typical_distance(model: ImageModel, seed: int) -> float:
    """The mean distance between two training images."""
    images = model.data.decode(model.images(model.chosen(300, seed + 1)))
    return float(torch.pdist(images.flatten(1)).mean())


def higham_5(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Nine chains from one noise at t = 1."""
    row = model.chosen(1, seed)
    noise = torch.randn((1, *model.data.shape), generator=generator_of(seed))
    process = model.process
    prior = process.start(lambda like: process.basis.forward(noise).to(like), noise)
    x = nine(model, prior, 1.0, quick, seed, **model.own_conditions(row))
    cells = [[(noisy_image(model, prior), "t = 1"), (x, "nine chains")]]
    save_table(cells, [""], ["", ""], path, "One noise, denoised nine times (Higham, Higham & Grindrod, figure 5).")

    typical, apart = typical_distance(model, seed), torch.pdist(x.flatten(1))
    classes, digits = model.judge.classes(x).tolist(), int(model.judge.recognised(x).sum())
    return Findings(
        f"{len(set(classes))} classes among nine images of one noise, {digits} of which are digits; the two most alike "
        f"are {float(apart.min()) / typical:.2f} of the distance between two images apart",
        bool(apart.min() > 0.2 * typical) and digits > NINE / 2,
        {"classes": classes, "digits": digits, "distances": apart.tolist(), "typical_distance": typical},
        "More than half are digits, and no two are within 0.2 of the mean distance between two training images.",
    )


def higham_6(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Nine chains from a training image noised to t = 1; and, which the paper does not show, to about t = 0.1."""
    row, process = model.chosen(1, seed), model.process
    image, cond = model.images(row), model.own_conditions(row)
    noise = torch.randn(image.shape, generator=generator_of(seed + 1))
    early = process.t_min + 0.1 * (1 - process.t_min)
    decoded, cells, drawn = model.data.decode(image), [], {}
    for number, t in enumerate((1.0, early)):
        level = process.level(t)  # eq. 8: x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) eps
        u = process.perturb(process.basis.forward(image), process.basis.forward(noise), level)
        drawn[t] = nine(model, u, t, quick, seed + NINE * number, **cond)
        noisy = (noisy_image(model, u), f"at t = {t:.2g}")
        cells.append([(decoded, "training image"), noisy, (drawn[t], "nine chains")])
    caption = "A training image, noised and denoised nine times (Higham, Higham & Grindrod, figure 6)."
    save_table(cells, ["", ""], [""] * 3, path, caption)

    def distances(x: Tensor) -> list[float]:
        return (x - decoded).flatten(1).norm(dim=1).tolist()

    others = model.chosen(1500, seed)[1:]
    real = [model.data.decode(model.images(others))]
    neighbour, typical = float(nearest(decoded, real).distance), typical_distance(model, seed)
    from_data = nearest(drawn[1.0], real).distance.tolist()
    late, back = distances(drawn[1.0]), distances(drawn[early])
    alike = sum(distance < neighbour for distance in late)
    count = len(others)
    return Findings(
        f"{alike} of nine resemble the image that was noised to t = 1; {sum(d < neighbour for d in back)} of nine "
        f"that was noised to t = {early:.2g}",
        alike == 0 and max(from_data) < typical,
        {
            "distances": late,
            "distances_from_early": back,
            "early": early,
            "nearest_training_image": neighbour,
            "distances_from_data": from_data,
            "typical_distance": typical,
        },
        f"An image resembles it if it is nearer to it than the nearest of {count} other training images: of nine "
        f"that are independent of it, one does in {100 * NINE / (count + 1):.1f} % of cases. And all nine are images: "
        f"each is nearer to one of these than two training images are to each other on average.",
    )


if __name__ == "__main__":
    main(__doc__, higham_5, higham_6)
