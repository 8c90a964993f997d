"""Why is the noise not removed in a single step? A slide's question, answered with pictures.

At every step the network predicts all of the noise, and so also the image behind it. But the prediction is an expectation:
the mean of all images that may be behind this noise. At t = 1 these are all images, and the mean of them is no image. (A
network that predicts the noise shows even less: its error is multiplied by sigma / alpha on the way to the image, which
is 150 at t = 1 of a usual table.) Each step that is taken from there makes the next mean one over fewer images.

    unidiff reproduce slides-one-step
    python examples/papers/one_step.py --run exact:digits
"""

from __future__ import annotations

from pathlib import Path

import torch

import unidiff as ud
from unidiff.evaluation.image_measures import laplacian
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import save_table

SHOWN = 9


def slides_one_step(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The same noises in 1, 2, 5, 10 and many steps of DDIM, and how many of the results are digits."""
    count, most = (20, 30) if quick else (100, 250)
    cells, digits, sharp = [], {}, {}
    for steps in (1, 2, 5, 10, most):
        # The flow, so that a noise has one image, whatever the number of steps; one step is E[x0 | x_T].
        x = model.draw(count, ud.DDIM(), steps, seed=seed).x
        digits[steps] = int(model.judge.recognised(x).sum())
        sharp[steps] = float(laplacian(x.clamp(-1, 1)).mean())
        cells.append((x[:SHOWN], f"{steps} step{'s' if steps > 1 else ''}"))
    real = model.data.decode(model.images(model.chosen(count, seed)))
    cells.append((real[:SHOWN], "data"))
    caption = "The same nine noises, denoised in one step and in more (slides, appendix E)."
    save_table([cells], [""], [""] * len(cells), path, caption)
    alike = float(torch.pdist(model.draw(count, ud.DDIM(), 1, seed=seed).x.flatten(1)).mean())
    return Findings(
        f"{digits[1]} of {count} are digits after one step, {digits[10]} after ten, {digits[most]} after {most}",
        digits[1] < count / 4 < count / 2 < digits[most],
        {
            "samples": count,
            "digits": {str(steps): number for steps, number in digits.items()},
            "sharpness": {
                **{str(steps): value for steps, value in sharp.items()},
                "data": float(laplacian(real).mean()),
            },
            "distance_between_one_step_images": alike,
            "distance_between_images": float(torch.pdist(real.flatten(1)).mean()),
        },
        "Less than a quarter in one step, and more than half in the end.",
    )


if __name__ == "__main__":
    main(__doc__, slides_one_step)
