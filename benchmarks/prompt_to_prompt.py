"""Prompt-to-prompt on captioned digits: what an edited caption changes and what stays, with and without it.

One word of a caption is swapped: the digit, the ink or the ground. The edited sample is drawn from another seed, from
the same seed, and from the same seed with shared attention until several times. The judge is that of caption_judge.py:
what share shows all of the edited caption. What is to stay is the drawing: the amount of ink in each pixel, by the
projection onto the line from ground to ink, and where the colours stay also the pixels themselves. The number is the
root mean square difference from the sample of the first caption, over those pairs whose first sample is right.

    python benchmarks/prompt_to_prompt.py runs/captioned_digits --out prompt_to_prompt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from caption_judge import COLOURS, DIGIT, GROUND, INK, Judge, all_captions, attributes
from rows import machine
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.data.captioned import CaptionedDigits

WORDS = CaptionedDigits.words
SOLVER, GRID = "exponentialadams", ud.Tapered(25)


def ink_amount(x: Tensor, captions: Tensor) -> Tensor:
    """How much ink is in each pixel, (B, H, W): 0 for the ground of the caption, 1 for its ink."""
    _, ink, ground = attributes(captions).unbind(1)
    ground, line = (value[:, :, None, None] for value in (COLOURS[ground], COLOURS[ink] - COLOURS[ground]))
    return ((x - ground) * line).sum(1) / line.square().sum(1)


def rms(difference: Tensor) -> str:
    """Root mean square, and its standard error over the pairs (by the delta method)."""
    squares = difference.flatten(1).square().mean(1).double()
    root = float(squares.mean().sqrt())
    return f"{root:.3f} ± {float(squares.std()) / len(squares) ** 0.5 / 2 / root:.3f}"


def swapped(captions: Tensor, place: int) -> Tensor:
    """The captions with another word at a place: the next digit but two, or the next colour that stands out."""
    first, count = (WORDS.index("zero"), 10) if place == DIGIT else (WORDS.index("red"), len(COLOURS))
    other = captions.clone()
    other[:, place] = first + (captions[:, place] - first + (3 if place == DIGIT else 1)) % count
    clash = other[:, INK] == other[:, GROUND]
    other[clash, place] = first + (captions[clash, place] - first + 2) % count
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of captioned_digits")
    parser.add_argument("--out", type=Path, default=Path("prompt_to_prompt"), help="folder of the figure")
    parser.add_argument("--count", type=int, default=60, help="captions")
    parser.add_argument("--scale", type=float, default=2.0, help="of classifier-free guidance")
    parser.add_argument("--until", type=float, nargs="*", default=[0.8, 0.5, 0.2], help="times")
    parser.add_argument("--shown", type=float, default=0.5, help="the time of the figure, one of --until")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = ud.load(options.run, device="cpu")
    model = ud.ClassifierFree(run.denoiser, options.scale)
    every, judge = all_captions(), Judge()
    captions = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: options.count]]
    seeds = list(range(options.count))
    print(machine())
    ways = {"another seed": (1.0, 1.0), "the same seed": (1.0, 1.0)}
    ways |= {f"shared above t = {t:g}": (t, 1.0) for t in options.until}
    ways |= {f"self-attention, too, above t = {t:g}": (t, t) for t in options.until}
    rows = []
    print("| swapped | drawn with | all right | drawing, rms | pixels, rms |")
    print("|---" * 5 + "|")
    for name, place in (("digit", DIGIT), ("ink", INK), ("ground", GROUND)):
        edited = swapped(captions, place)
        cells: dict[str, Tensor] = {}
        for way, (until, self_until) in ways.items():
            chosen = [10_000 + seed for seed in seeds] if way == "another seed" else seeds
            pairs = ud.prompt_to_prompt(
                model, captions, edited, SOLVER, GRID, chosen, until=until, self_until=self_until
            )
            cells[way] = pairs.edited
            if way == "the same seed":
                cells["source"] = pairs.source
        source = cells["source"]
        good = judge.right(source, captions).all(1)
        rows.append((name, cells))
        for way in ways:
            x = cells[way]
            right = judge.right(x, edited).all(1).double()
            drawing = ink_amount(x, edited)[good] - ink_amount(source, captions)[good]
            print(f"| {name} | {way} | {right.mean():.0%} | {rms(drawing)} | {rms((x - source)[good])} |", flush=True)
    print(f"pairs whose first sample is right: {int(good.sum())} of {len(good)}")
    best = f"shared above t = {options.shown:g}"
    shown = range(10)
    table = [
        (f"{name}, {label}", [(cells[way][i : i + 1].clamp(-1, 1), "") for i in shown])
        for name, cells in rows
        for label, way in (("first", "source"), ("same seed", "the same seed"), ("shared", best))
    ]
    names, values = [row[0] for row in table], [row[1] for row in table]
    note = "A word is swapped: the first sample, the edited caption from the same seed, and with shared attention."
    plot.save_table(values, names, [""] * 10, options.out / "prompt_to_prompt.png", note)


if __name__ == "__main__":
    main()
