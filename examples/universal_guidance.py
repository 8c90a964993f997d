"""Guidance by what knows clean images alone: a classifier that never saw noise, and a wish for symmetry.

Universal guidance (Bansal et al. 2023) asks an energy of the model's prediction E[x0 | u] at each time. The model is
the shipped unconditional DDPM of 8x8 digits, which was told no class. Two energies:

- minus the logarithm of the probability that a classifier of clean digits gives to the wanted class;
- the mean square of the difference between an image and its mirror image.

Both guide below t = 0.6 only. The shift of E[x0 | u] is sigma^2 / alpha times a gradient through the network. At higher
noise alpha is near 0, and the error of the network's derivative, multiplied by that, would drive the samples apart.

A judge that took no part, the classes of the three nearest training images, says which digit a sample is.

    python examples/universal_guidance.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.evaluation import load_features


def nearest_class(x: Tensor) -> Tensor:
    """The class of most of the three nearest training images, (N,)."""
    digits = ud.data.Digits().open()
    known = digits.batch(torch.arange(len(digits)))
    nearest = torch.cdist(x.flatten(1).to(known.dtype), known.flatten(1)).topk(3, largest=False).indices
    assert digits.labels is not None
    return digits.labels[nearest].mode(1).values


def asymmetry(x: Tensor) -> Tensor:
    """Mean square difference between each image and its mirror image, (N,)."""
    return (x - x.flip(-1)).square().flatten(1).mean(1)


def main() -> None:
    """Draw digits that were asked for, and symmetric ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--count", type=int, default=20, help="samples of each digit, and as many tens of symmetric ones"
    )
    parser.add_argument("--scale", type=float, default=3.0, help="of the classifier's energy")
    parser.add_argument("--symmetry", type=float, default=20.0, help="scale of the other energy")
    parser.add_argument("--high", type=float, default=0.6, help="the time below which samples are guided")
    parser.add_argument("--steps", type=int, default=50, help="evaluations of an unguided sample")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    model = ud.load("shipped:ddpm_digits", device="cpu").denoiser
    classifier = load_features("digits").classifier
    clean = classifier.process.level(classifier.process.t_min)
    wanted = torch.arange(10).repeat(options.count)

    def unlikely(x: Tensor) -> Tensor:
        # The wanted digits lie in rows of ten, and so do the samples whose gradients are computed together.
        label = torch.arange(10).repeat(len(x) // 10)
        return -classifier.log_prob(clean.alpha * x, clean, label)

    def draw(denoiser: ud.Denoiser) -> Tensor:
        return ud.sample(denoiser, ud.DDIM(), ud.Tapered(options.steps), seeds=len(wanted)).x.clamp(-1, 1)

    def guided(energy: Callable[[Tensor], Tensor], scale: float) -> ud.Denoiser:
        universal = ud.UniversalGuidance(model, energy, scale, chunk=10)
        return ud.GuidanceInterval(universal, 0.0, options.high)

    plain = draw(model)
    told, mirrored = draw(guided(unlikely, options.scale)), draw(guided(asymmetry, options.symmetry))

    agreement = [(nearest_class(x) == wanted).double().mean().item() for x in (plain, told)]
    sides = [asymmetry(x).mean().item() for x in (plain, mirrored)]
    print(f"the wanted digit, by the nearest training images: {agreement[0]:.1%} unguided, {agreement[1]:.1%} guided")
    print(f"mean square difference from the mirror image: {sides[0]:.3f} unguided, {sides[1]:.3f} guided")

    names = ["unguided"] * 2 + ["a digit each"] * 3 + ["symmetric"] * 2
    rows = [*plain[:20].split(10), *told[:30].split(10), *mirrored[:20].split(10)]
    cells = [[(x[None], "") for x in row] for row in rows]
    caption = (
        "One unconditional model, guided by a classifier of clean images, and to symmetry; seeds as in the rows above."
    )
    plot.save_table(cells, names, [str(d) for d in range(10)], options.out / "universal_guidance.png", caption)
    assert agreement[1] > agreement[0] + 0.4
    assert sides[1] < sides[0] / 2


if __name__ == "__main__":
    main()
