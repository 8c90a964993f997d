"""How often samples show the digit and the colours of their caption: the table and the figure of docs/conditions.md.

With --encoder also under CLIP guidance, of the model with its caption and of the model without: the table of
docs/systems/glide.md. The judge is that of caption_judge.py.

    python benchmarks/captions.py runs/captioned_digits
    python benchmarks/captions.py runs/captioned_digits --encoder runs/contrastive_digits --scales 1 2 3 4
    python benchmarks/captions.py runs/captioned_digits --inpaint --splits test --scales 1 2 4

With --inpaint the six columns in the middle of a real image are drawn again, told a caption with another digit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from caption_judge import DIGIT, HEAD, Judge, text
from torch import Tensor

import unidiff as ud
from unidiff import plot


class Unconditional(ud.Denoiser):
    """A model that is passed no condition: its unconditional branch."""

    conditions = ()

    def __init__(self, model: ud.Denoiser) -> None:
        super().__init__()
        self.model, self.process, self.shape = model, model.process, model.shape

    def forward(self, u: Tensor, level: Any, **cond: Tensor) -> Any:
        return self.model(u, level)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run")
parser.add_argument("--count", type=int, default=200, help="captions of each split")
parser.add_argument("--figure", default="captions.png", help="samples of captions of the test split, a row of ten each")
parser.add_argument("--scales", type=float, nargs="*", default=[1.0, 2.0, 4.0], help="of classifier-free guidance")
parser.add_argument("--encoder", help="a run of contrastive_digits, for CLIP guidance")
parser.add_argument("--clip", type=float, nargs="*", default=[1.0, 4.0, 16.0], help="scales of CLIP guidance")
parser.add_argument("--high", type=float, default=0.7, help="the time below which CLIP guidance is on")
parser.add_argument("--splits", nargs="*", default=["train", "test"], help="whose captions")
parser.add_argument("--steps", type=int, help="evaluations of a sample, on Tapered [default: the grid of the run]")
parser.add_argument("--inpaint", action="store_true", help="fill holes of real images instead")
options = parser.parse_args()

run = ud.load(options.run, device="cpu")
model, solver, grid = run.denoiser, run.recipe.sampling.solver, run.recipe.sampling.grid
grid = grid if options.steps is None else ud.Tapered(options.steps)
judge, plain = Judge(), Unconditional(model)
encoder = None if options.encoder is None else ud.load_contrastive(options.encoder, device="cpu")
guided: dict[str, Callable[[], ud.Denoiser]] = {
    f"scale {scale:g}": lambda scale=scale: ud.ClassifierFree(model, scale) for scale in options.scales
}


def clip(denoiser: ud.Denoiser, scale: float) -> ud.Denoiser:
    """The model under CLIP guidance at times below --high."""
    assert encoder is not None
    return ud.GuidanceInterval(ud.CLIPGuidance(denoiser, encoder, scale), 0.0, options.high)


if encoder is not None:
    guided |= {f"CLIP {s:g} alone": lambda s=s: clip(plain, s) for s in options.clip}
    guided |= {f"caption and CLIP {s:g}": lambda s=s: clip(model, s) for s in options.clip}


def draw(denoiser: ud.Denoiser, caption: Tensor) -> Tensor:
    """Samples of these captions."""
    return ud.sample(denoiser, solver, grid, seeds=len(caption), batch=100, caption=caption).x


KNOWN = torch.ones(8, 8, dtype=torch.int64)
KNOWN[:, 1:7] = 0


def fill(denoiser: ud.Denoiser, images: Tensor, caption: Tensor, method: ud.Solver = solver) -> Tensor:
    """Each image with its hole filled, told its caption."""
    numbered = enumerate(zip(images, caption))
    return torch.cat([ud.inpaint(denoiser, x, KNOWN, method, grid, [n], caption=c[None]).x for n, (x, c) in numbered])


def inpainting(truth: Tensor, captions: Tensor, split: str) -> dict[str, Tensor]:
    """Real images, and the same told another digit, in all ways."""
    zero, edited = run.recipe.data.words.index("zero"), captions.clone()
    edited[:, DIGIT] = zero + (captions[:, DIGIT] - zero + 3) % 10
    made = {"images": truth, "no caption": fill(model, truth, torch.full_like(captions, -1))}
    made |= {name: fill(make(), truth, edited) for name, make in guided.items()}
    repaint = ud.Resampling(repeats=3, jump=5)
    made["scale 2, RePaint"] = fill(ud.ClassifierFree(model, 2.0), truth, edited, repaint)
    for name, x in made.items():
        assert torch.equal((x - truth) * KNOWN, torch.zeros_like(x))
        judge.line(f"{split}, {name}, told digit", x, edited)
    judge.line(f"{split}, no caption, digit of the image", made["no caption"], captions)
    return {name: x[:10] for name, x in made.items()}


print(HEAD)
rows = {}
for split in options.splits:
    source = run.recipe.data.open(split)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    truth, captions = source.examples(order[: options.count])
    if options.inpaint:
        rows = inpainting(truth, captions, split)
        continue
    if split == "test":
        judge.line("test images", truth, captions)
        judge.line("samples without a caption", draw(model, torch.full_like(captions, -1)), captions)
    for name, make in guided.items():
        x = draw(make(), captions)
        judge.line(f"captions of {split}, {name}", x, captions)
        rows[name] = x[:10]
words = [text(caption) for caption in captions[:10]]
if encoder is None and not options.inpaint:
    x = draw(ud.ClassifierFree(model, 2.0), captions[:10].repeat_interleave(10, 0))
    plot.save_samples(x, options.figure, "Each row is one of these captions:\n" + "; ".join(words), 10)
else:
    cells = [[(x[i : i + 1], "") for i in range(len(x))] for x in rows.values()]
    plot.save_table(cells, [*rows], words, options.figure, f"Captions of {split}, the same seeds in each row.")
