"""How often samples show the digit and the colours of their caption: the table and the figure of docs/conditions.md.

A sample is compared with the training digits in every pair of two colours; the digit, the ink and the ground are what
most of the three nearest ones have.

python benchmarks/captions.py runs/captioned_digits
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.data.captioned import CaptionedDigits

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run")
parser.add_argument("--count", type=int, default=200, help="captions of each split")
parser.add_argument("--figure", default="captions.png", help="samples of captions of the test split, a row of ten each")
options = parser.parse_args()

run = ud.load(options.run, device="cpu")
model, data, solver, grid = run.denoiser, CaptionedDigits, run.recipe.sampling.solver, run.recipe.sampling.grid
grey = ud.data.Digits().open()
amount = (grey.batch(torch.arange(len(grey))) + 1) / 2
colours = torch.tensor(list(data.COLOURS.values())).float()
pairs = [(ink, ground) for ink in range(len(colours)) for ground in range(len(colours)) if ink != ground]
known = torch.cat([torch.lerp(colours[b, :, None, None], colours[a, :, None, None], amount) for a, b in pairs])
shown = torch.cat([torch.stack([*torch.broadcast_tensors(grey.labels, *map(torch.tensor, pair))], 1) for pair in pairs])
first_colour, first_digit = data.words.index("red"), data.words.index("zero")


def line(name: str, x: Tensor, caption: Tensor) -> None:
    """Print how many samples show what their captions say."""
    distance, nearest = torch.cdist(x.flatten(1), known.flatten(1)).topk(3, largest=False)
    found = shown[nearest].mode(1).values
    told = torch.stack([caption[:, 2] - first_digit, caption[:, 1] - first_colour, caption[:, 4] - first_colour], 1)
    right, rms = found == told, distance[:, 0].square().mean().div(x[0].numel()).sqrt()
    shares = "  ".join(f"{part:6.1%}" for part in [*right.double().mean(0), right.all(1).double().mean()])
    print(f"{name:32s} {shares}  {rms:.3f}", flush=True)


def draw(caption: Tensor, scale: float) -> Tensor:
    """Samples of these captions."""
    guided = ud.ClassifierFree(model, scale)
    return ud.sample(guided, solver, grid, seeds=len(caption), batch=100, caption=caption).x


print(f"{'':32s}  digit     ink  ground     all  rms of the nearest image")
for split in ("train", "test"):
    source = run.recipe.data.open(split)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    truth, captions = source.examples(order[: options.count])
    if split == "test":
        line("test images", truth, captions)
        line("samples without a caption", draw(torch.full_like(captions, -1), 1.0), captions)
    for scale in (1.0, 2.0, 4.0):
        line(f"captions of {split}, scale {scale:g}", draw(captions, scale), captions)
words = [" ".join(data.words[number] for number in caption) for caption in captions[:10]]
x = draw(captions[:10].repeat_interleave(10, 0), 2.0)
plot.save_samples(x, options.figure, "Each row is one of these captions:\n" + "; ".join(words), 10)
