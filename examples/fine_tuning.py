"""Fine-tuning: a model of upright digits learns, from its own weights, to draw sheared ones.

The data are scikit-learn's digits of 8x8 pixels with each row moved sideways in proportion to its height, by bilinear
interpolation. One run trains on the digits as they are; a second starts from its weights (`start:`) and sees sheared
digits for a third of the steps. The slant of images is measured by their moments: the slope cov(x, y) / var(y) of the
line that x follows on average as y grows, with the ink as weights. Claims, asserted: samples of the first run have the
slant of the digits, those of the second the slant of the sheared digits, each to a fifth of what lies between the two.

    python examples/fine_tuning.py
    python examples/fine_tuning.py --run runs/ddpm_mnist_cpu --steps 400
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import unidiff as ud
from unidiff import plot
from unidiff.data.sheared import sheared, slant

SHEAR = 0.4  # columns that a row moves against the next
COUNT = 1500  # images that are sheared and fine-tuned on


class Silent:
    """Shows no progress."""

    def notice(self, text: str) -> None:
        """Print what must be known."""
        print(text)

    def progress(self, stage: str, done: int, total: int, loss: float | None = None) -> None:
        """Nothing."""


def train(recipe: str, run: Path, changes: list[str]) -> None:
    """Run a recipe with changes into a run directory, and print the seconds that it takes."""
    begun = time.perf_counter()
    ud.load_recipe(recipe, changes).run(run, Silent(), device="cpu", overwrite=True)
    print(f"{run}: {time.perf_counter() - begun:.0f} s")


def main() -> None:
    """Train, fine-tune, hold the claims against what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"), help="folder for the image and the runs")
    parser.add_argument(
        "--run", type=Path, help="the run to start from, of grey images [default: ddpm_digits is trained]"
    )
    parser.add_argument(
        "--steps", type=int, default=333, help="of fine-tuning; ddpm_digits is trained for three times as many"
    )
    parser.add_argument("--count", type=int, default=100, help="samples to draw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both recipes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    common = [
        f"sampling={{solver: DDIM, grid: {{type: Uniform, steps: 25}}, count: {options.count}}}",
        "training.preview_every=0",
        *options.set,
    ]
    first, second, recipe = options.run, options.out / "sheared", "ddpm_digits"
    if first is None:
        first = options.out / "upright"
        common.insert(0, "parameterization=V")
        train(recipe, first, [*common, f"training.steps={3 * options.steps}"])
    else:
        recipe = str(first / "recipe.yaml")

    upright = ud.load(first, device="cpu").recipe.data.open().batch(torch.arange(COUNT))
    path = options.out / "sheared_digits.npy"
    np.save(path, sheared(upright, SHEAR).numpy())
    data_key = f"data={{type: ArrayFile, path: {path.absolute()}}}"
    train(recipe, second, [*common, f"training.steps={options.steps}", f"start={first.absolute()}", data_key])
    before, after = (ud.load(run, device="cpu") for run in (first, second))
    samples = [run.sample(after.recipe.sampling).x for run in (before, after)]

    data = [slant(upright), slant(sheared(upright, SHEAR))]
    drawn = [slant(x) for x in samples]
    print(f"slant of the data, upright and sheared: {data[0]:+.3f} {data[1]:+.3f}")
    print(f"slant of samples, before and after:     {drawn[0]:+.3f} {drawn[1]:+.3f}")
    for found, expected in zip(drawn, data):
        assert abs(found - expected) < abs(data[1] - data[0]) / 5

    rows = torch.cat([upright[:10], samples[0][:30], sheared(upright[:10], SHEAR), samples[1][:30]])
    caption = (
        "A row of digits and 30 samples of a model of them; a row of sheared digits and 30 samples after fine-tuning."
    )
    plot.save_samples(rows, options.out / "fine_tuning.png", caption, columns=10)
    print(f"{options.out / 'fine_tuning.png'}")


if __name__ == "__main__":
    main()
