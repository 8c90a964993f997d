"""Why is the noise not removed in a single step? A slide's question, answered with pictures.

At every step the network predicts all of the noise, and so also the image behind it. But the prediction is an
expectation: the mean of all images that may be behind this noise. At t = 1 these are all images, and the mean of them
is no image. (A network that predicts the noise shows even less: its error is multiplied by sigma / alpha on the way to
the image, which is 150 at t = 1 of a usual table.) Each step that is taken from there makes the next mean one over
fewer images.

    unidiff reproduce slides-one-step
    python examples/papers/one_step.py --run exact:digits
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.evaluation.image_measures import laplacian
from unidiff.evaluation.memorization import nearest
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import save_table

SHOWN = 9


def slides_one_step(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The same noises in 1, 2, 5, 10 and many steps of DDIM, and how many of the results are near the data."""
    count, most = (20, 30) if quick else (100, 250)
    data = model.data.images
    train, test = data.open(), data.open("test")

    def distance(x: Tensor) -> Tensor:
        """To the nearest training image."""
        return nearest(x.clamp(-1, 1), train.all_batches()).distance

    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:300]
    real = test.batch(chosen)
    limit = float(distance(real).quantile(0.99))
    cells, near, sharp = [], {}, {}
    for steps in (1, 2, 5, 10, most):
        # The flow, so that a noise has one image, whatever the number of steps; one step is E[x0 | x_T].
        x = model.draw(count, ud.DDIM(), steps, seed=seed).x
        near[steps] = int((distance(x) <= limit).sum())
        sharp[str(steps)] = float(laplacian(x.clamp(-1, 1)).mean())
        cells.append((x[:SHOWN], f"{steps} step{'s' if steps > 1 else ''}"))
    cells.append((real[:SHOWN], "data"))
    caption = "The same nine noises, denoised in one step and in more (slides, appendix E)."
    save_table([cells], [""], [""] * len(cells), path, caption)
    return Findings(
        f"of {count} images {near[1]} are near the data after one step, {near[10]} after ten, {near[most]} after "
        f"{most}",
        near[1] < count / 4 and near[most] > count / 2,
        {
            "samples": count,
            "near_the_data": {str(steps): number for steps, number in near.items()},
            "sharpness": {**sharp, "data": float(laplacian(real).mean())},
            "distance": limit,
        },
        "Less than a quarter in one step, and more than half in the end. Near is as near to a training image as 99 of "
        "100 test images are.",
    )


if __name__ == "__main__":
    main(__doc__, slides_one_step)
