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

from torch import Tensor

import unidiff as ud
from unidiff.evaluation.image_measures import laplacian
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import save_table

SHOWN = 9


def slides_one_step(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The same noises in 1, 2, 5, 10 and many steps of DDIM, and how many of the results are near the data."""
    count, most = (20, 30) if quick else (100, 100)
    judge = model.judge
    real = judge.held_out
    farthest = float(judge.distance(real).quantile(0.99))
    least = float(laplacian(real).quantile(0.01))  # sharp images have large second differences

    def like_the_data(x: Tensor) -> Tensor:
        """Near a training image, which noise is not, and sharp, which a mean of images is not."""
        return (judge.distance(x) <= farthest) & (laplacian(x.clamp(-1, 1)) >= least)

    cells, found, sharp = [], {}, {}
    for steps in (1, 2, 5, 10, most):
        # The flow, so that a noise has one image, whatever the number of steps; one step is E[x0 | x_T].
        x = model.draw(count, ud.DDIM(), steps, seed=seed).x
        found[steps] = int(like_the_data(x).sum())
        sharp[str(steps)] = float(laplacian(x.clamp(-1, 1)).mean())
        cells.append((x[:SHOWN], f"{steps} step{'s' if steps > 1 else ''}"))
    cells.append((real[:SHOWN], "data"))
    caption = "The same nine noises, denoised in one step and in more (slides, appendix E)."
    save_table([cells], [""], [""] * len(cells), path, caption)
    return Findings(
        f"of {count} images {found[1]} are like the data after one step, {found[10]} after ten, {found[most]} after "
        f"{most}",
        found[1] < count / 4 and found[most] > count / 2,
        {
            "samples": count,
            "like_the_data": {str(steps): number for steps, number in found.items()},
            "sharpness": {**sharp, "held_out": float(laplacian(real).mean())},
            "largest_distance": farthest,
            "least_sharpness": least,
        },
        "Less than a quarter in one step, and more than half in the end. Like the data is as near to a training image "
        "and as sharp as 99 of 100 held-out images.",
    )


if __name__ == "__main__":
    main(__doc__, slides_one_step)
