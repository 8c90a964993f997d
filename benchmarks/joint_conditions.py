"""How well samples follow a class and an image together: the table and the figure of docs/conditions.md.

python benchmarks/joint_conditions.py runs/superresolution_classes_digits
"""

from __future__ import annotations

import sys

import torch

import unidiff as ud
from unidiff import plot
from unidiff.evaluation.conditional import rms

COUNT, OTHER, SHOWN = 200, 5, 4


def main(directory: str) -> None:
    run = ud.load(directory, device="cpu")
    model, sampling, both = run.denoiser, run.recipe.sampling, run.recipe.conditioning
    train = run.recipe.data.open()
    known = train.batch(torch.arange(len(train))).flatten(1)
    cond, truth = both.examples(run.recipe.data, COUNT, 10)
    image, label = cond["image"], cond["label"]
    other = (label + OTHER) % 10

    def classes(x: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(x.flatten(1), known).topk(3, largest=False).indices
        return train.labels[nearest].mode(1).values

    def line(name: str, x: torch.Tensor, wanted: torch.Tensor) -> None:
        right = (classes(x) == wanted).double().mean()
        means = both.measured.measure(x.clamp(-1, 1), x[:, :0])
        print(f"{name:28s} {right:6.1%} of the class, rms {rms(means, image):.3f} of the block means")

    def draw(denoiser: ud.Denoiser, **cond: torch.Tensor) -> torch.Tensor:
        return ud.sample(denoiser, sampling.solver, sampling.grid, seeds=len(cond["image"]), **cond).x

    line("test images", truth, label)
    line("image and its class", draw(model, **cond), label)
    line("image alone", draw(model, image=image), label)
    line("class alone", draw(model, image=torch.zeros_like(image), label=label), label)
    line("image and another class", draw(model, image=image, label=other), other)
    for scale in (2.0, 4.0):
        guided = ud.ClassifierFree(model, scale, names=["label"])
        line(f"the same, guided at {scale:g}", draw(guided, image=image, label=other), other)
    guided = ud.ClassifierFree(model, 2.0, names=["label"])
    ten = torch.arange(10).repeat(SHOWN)
    x = draw(guided, image=image[:SHOWN].repeat_interleave(10, 0), label=ten).unflatten(0, (SHOWN, 10))
    rows = torch.cat([image[:SHOWN, None], x, truth[:SHOWN, None]], 1).flatten(0, 1)
    plot.save_samples(rows, "joint_conditions.png", "2x2 pixels, the ten classes, the truth; label guided at 2", 12)


if __name__ == "__main__":
    main(sys.argv[1])
