"""No guidance, w = 1 and w = 3: the slides' figure of classifier-free guidance, after Ho & Salimans 2022.

Guidance goes beyond the conditional prediction, away from the unconditional one:
eps = (1 + w) eps(x, class) - w eps(x). Samples are then more typical of their class, and more alike. unidiff's scale is
1 + w, so that 1 is the plain model.

    unidiff reproduce slides-guidance
    python examples/papers/guidance_scales.py --run runs/ddpm_digits_classes
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import save_table

WEIGHTS = (0, 1, 3)


def spread(x: Tensor, label: Tensor) -> float:
    """Mean distance between two images of one class, averaged over the classes."""
    return float(torch.stack([torch.pdist(x[label == own].flatten(1)).mean() for own in label.unique()]).mean())


def slides_guidance(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The same noises and classes at three weights; agreement with the class, and what is left of the variety."""
    classes = model.data.classes
    count = classes * (4 if quick else 20)
    label = torch.arange(count) % classes
    cells, agreement, variety = [], {}, {}
    for w in WEIGHTS:
        guided = ud.ClassifierFree(model.denoiser, scale=1.0 + w)
        x = model.draw(
            count, ud.ExponentialAdams(), 12 if quick else 30, seed=seed, denoiser=guided, cond={"label": label}
        ).x
        agreement[w] = float((model.judge.classes(x) == label).double().mean())
        variety[w] = spread(x, label)
        # A column for each class.
        cells.append([(x[label == own][:9], "") for own in range(classes)])
    rows = ["no guidance" if w == 0 else f"w = {w}" for w in WEIGHTS]
    caption = "Samples of each class, the same noises under three weights (slides, after Ho & Salimans 2022)."
    save_table(cells, rows, [f"class {own}" for own in range(classes)], path, caption)
    first, *_, last = WEIGHTS
    return Findings(
        "of the class that was asked for: "
        + ", ".join(f"{100 * value:.0f} % at w = {w}" for w, value in agreement.items())
        + f"; two samples of a class are {variety[last] / variety[first]:.2f} times as far apart at w = {last}",
        agreement[last] >= max(agreement[first], 0.5) and variety[last] < 0.95 * variety[first],
        {
            "samples": count,
            "agreement": {str(w): value for w, value in agreement.items()},
            "distance_within_a_class": {str(w): value for w, value in variety.items()},
        },
        "No fewer are of the class that was asked for, and at least half; those of a class are more alike by 5 % at "
        "least.",
    )


if __name__ == "__main__":
    main(__doc__, slides_guidance)
