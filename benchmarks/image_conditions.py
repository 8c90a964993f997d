"""How far samples of a model that is told images are from the truth, beside the mean prediction and a guess.

python benchmarks/image_conditions.py RUN [--images 100] [--each 4]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

import unidiff as ud
from unidiff.conditioning.masks import MaskedImages
from unidiff.evaluation.conditional import rms
from unidiff.tasks.generation_report import errors


def main() -> None:
    """Print the root mean square errors over all pixels of test images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--each", type=int, default=4)
    given = parser.parse_args()
    run = ud.load(given.run)
    conditioning = run.recipe.conditioning
    assert isinstance(conditioning, ud.ImageConditioning)
    cond, truth = conditioning.examples(run.recipe.data, given.images, None)
    assert truth is not None
    image = cond["image"].repeat_interleave(given.each, 0)
    sampling = replace(run.recipe.sampling, count=len(image))
    x = conditioning.compose(run.sample(sampling, image=image).x.cpu(), {"image": image})
    repeated = truth.repeat_interleave(given.each, 0)
    found = errors(run.denoiser, conditioning, sampling, {"image": image}, repeated, x, run.precision)
    drawn = x.unflatten(0, (given.images, given.each))
    spread = float(drawn.var(1).mean().sqrt())
    # The mean of n samples is off by the variance / n more than that of all would be.
    mean = max(rms(drawn.mean(1), truth) ** 2 - spread**2 / given.each, 0.0) ** 0.5
    print(f"{given.run}: {given.images} test images, {given.each} samples of each, {run.step} steps of training")
    print(f"rms of samples             {found.samples:.4f}")
    print(f"rms of mean prediction     {found.mean_prediction}")
    print(f"rms of the samples' mean   {mean:.4f}")
    print(f"spread of samples, std     {spread:.4f}")
    print(f"rms of a guess             {found.guess:.4f}")
    print(f"samples / samples' mean    {found.samples / mean:.3f}, {2**0.5:.3f} for an exact model")
    if isinstance(conditioning, MaskedImages):
        print(f"share of pixels in holes   {1 - float(cond['image'][:, -1].mean()):.3f}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
