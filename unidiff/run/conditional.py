"""What a model that is told images makes of some: rows of condition, samples and truth, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unidiff.conditioning.palette import ImageConditioning
from unidiff.denoiser import NeuralDenoiser
from unidiff.evaluation.conditional import mean_prediction, rms, tells_mean
from unidiff.sampling import Sampling
from unidiff.training.device import arithmetic

__all__ = ["errors", "in_words", "rows"]

_NOISES = 8  # over which the mean prediction is averaged


def rows(conditioning: ImageConditioning, image: Tensor, x: Tensor, truth: Tensor | None) -> tuple[Tensor, int]:
    """Pictures in rows of condition, samples and, where it is known, truth; and how many a row has."""
    cells = [conditioning.as_image(image)[:, None], x.unflatten(0, (len(image), -1))]
    cells += [] if truth is None else [truth[:, None]]
    table = torch.cat(cells, dim=1)
    return table.flatten(0, 1), table.shape[1]


def errors(
    model: NeuralDenoiser,
    conditioning: ImageConditioning,
    sampling: Sampling,
    image: Tensor,
    truth: Tensor,
    x: Tensor,
    precision: torch.dtype,
) -> dict[str, Any]:
    """Root mean square error per value, over all pixels, of three answers to some conditions.

    Args:
        model: The model.
        conditioning: What made the conditions.
        sampling: Its `batch` and `seed` are used.
        image: The conditions, (B, C', H, W).
        truth: What they were made from, (B, C, H, W).
        x: A sample for each, (B, C, H, W).
        precision: Number format of the network's arithmetic.

    Returns:
        `images`, the number of rows; the errors of `samples`, of the `mean_prediction`, the model's E[x0 | image] (None
        where `tells_mean` says that it cannot be read off), and of a `guess` without a model.
    """
    mean = None
    if tells_mean(model):
        device = next(model.parameters()).device
        seeds = range(sampling.seed, sampling.seed + len(image))
        options: dict[str, Any] = {"draws": _NOISES, "device": device, "batch": sampling.batch}
        with arithmetic(precision, device):
            expected = mean_prediction(model, seeds=seeds, image=image, **options).cpu()
        mean = round(rms(conditioning.compose(expected, {"image": image}), truth), 4)
    return {
        "images": len(image),
        "samples": round(rms(x, truth), 4),
        "mean_prediction": mean,
        "guess": round(rms(conditioning.baseline(image), truth), 4),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """What `errors` found, in a line."""
    mean = found["mean_prediction"]
    told = f"{mean:.4f} of the mean prediction, " if mean is not None else ""
    return f"rms {found['samples']:.4f} of samples, {told}{found['guess']:.4f} of a guess; {found['images']} answers"
