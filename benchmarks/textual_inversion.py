"""Textual inversion on captioned digits: the word "orange" is learned from threes and fives, and used with all digits.

The model knows six colours, and orange is none of them. The only weight that is trained is the vector of the word, from
images of two digits in orange ink on all grounds. Then samples of all ten digits are drawn, "a orange seven on blue",
and the ink of each is measured: by least squares, with the nearest training digit as the amount of ink in each pixel.
The digit is that of the nearest training image in these colours. Beside it stand images themselves, the word that it
began with, and captions of the model's own words before and after.

    python benchmarks/textual_inversion.py runs/captioned_digits --out textual_inversion
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from caption_judge import COLOURS
from rows import machine
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.data.captioned import CaptionedDigits, CaptionedSource

ORANGE = torch.tensor([1.0, 0.0, -1.0])
GROUNDS = ("blue", "white", "black")
SEEN = (3, 5)
WORDS = CaptionedDigits.words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of captioned_digits")
    parser.add_argument("--out", type=Path, default=Path("textual_inversion"), help="folder of the figure")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--each", type=int, default=10, help="samples of each digit on each ground")
    parser.add_argument("--like", default="red", help="the word that the new one begins as")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    grey = ud.data.Digits().open()
    amount, digit = (grey.batch(torch.arange(len(grey))) + 1) / 2, grey.labels
    assert digit is not None
    word = {name: number for number, name in enumerate((*WORDS, "orange"))}
    digits = [word[name] for name in CaptionedDigits.DIGITS]

    def ground(name: str) -> Tensor:
        return COLOURS[[*CaptionedDigits.COLOURS].index(name)]

    def caption(ink: str, number: int, on: str) -> Tensor:
        return torch.tensor([word["a"], word[ink], digits[number], word["on"], word[on]])

    def painted(values: Tensor, ink: Tensor, on: Tensor) -> Tensor:
        return torch.lerp(on[:, None, None], ink[:, None, None], values)

    images, captions = [], []
    for number in SEEN:
        for on in GROUNDS:
            chosen = painted(amount[digit == number], ORANGE, ground(on))
            images.append(chosen)
            captions.append(caption("orange", number, on).repeat(len(chosen), 1))
    source = CaptionedSource(torch.cat(images), torch.cat(captions), "orange digits", "")
    run = ud.load(options.run, device="cpu")
    start = time.process_time()
    settings = ud.Training(
        steps=options.steps, batch=64, lr=2e-2, warmup=10, ema=0.95, precision="fp32", tensorboard=False
    )
    objective = ud.Denoising(weighting=ud.UniformWeighting())
    longer = ud.add_word(run.denoiser, "orange", options.like)
    learned = ud.train(longer, source, objective, settings, conditioning=ud.Captions(0.0))
    size = sum(weight.numel() for weight in longer.parameters() if weight.requires_grad)
    print(f"{size} weights, {options.steps} steps of 64, {time.process_time() - start:.0f} CPU s, {len(source)} images")

    def drawn(model: ud.Denoiser, ink: str, numbers: tuple[int, ...], on: str) -> Tensor:
        said = torch.stack([caption(ink, number, on) for number in numbers]).repeat_interleave(options.each, 0)
        guided = ud.ClassifierFree(model, 2.0)
        return ud.sample(guided, "exponentialadams", ud.Tapered(25), seeds=len(said), caption=said).x

    def line(name: str, made: dict[str, Tensor], numbers: tuple[int, ...], ink: Tensor) -> None:
        """Share of right digits, and the mean ink beside the true one."""
        right, inks = [], []
        asked = torch.tensor(numbers).repeat_interleave(options.each)
        for on, x in made.items():
            known = painted(amount, ink, ground(on))
            nearest = torch.cdist(x.flatten(1), known.flatten(1)).topk(3, largest=False).indices
            right.append(digit[nearest].mode(1).values == asked)
            weights = amount[nearest[:, 0]]
            # Pixels are ground + weight (ink - ground): least squares in ink - ground.
            step = ((x - ground(on)[:, None, None]) * weights).sum((2, 3)) / weights.square().sum((2, 3))
            inks.append(step + ground(on))
        found = torch.cat(inks)
        mean, error = found.mean(0), found.std(0) / len(found) ** 0.5
        colour = ", ".join(f"{a:+.2f} ± {b:.2f}" for a, b in zip(mean.tolist(), error.tolist()))
        distance = (found - ink).square().mean(1).sqrt().mean()
        print(f"| {name} | {torch.cat(right).double().mean():.0%} | {colour} | {distance:.3f} |", flush=True)

    others = tuple(number for number in range(10) if number not in SEEN)
    print("| | digit right | ink: red, green, blue | rms from the true ink |")
    print("|---" * 4 + "|")
    test = ud.data.Digits().open("test")
    assert test.labels is not None
    sevens = (test.batch((test.labels == 7).nonzero()[: options.each, 0]) + 1) / 2
    line("test images of sevens", {on: painted(sevens, ORANGE, ground(on)) for on in GROUNDS}, (7,), ORANGE)
    before = {on: drawn(run.denoiser, options.like, others, on) for on in GROUNDS}
    line(f"{options.like}, which the word began as", before, others, ORANGE)
    seen = {on: drawn(learned, "orange", SEEN, on) for on in GROUNDS}
    line("orange, digits that were seen", seen, SEEN, ORANGE)
    unseen = {on: drawn(learned, "orange", others, on) for on in GROUNDS}
    line("orange, the other digits", unseen, others, ORANGE)
    new_ground = {on: drawn(learned, "orange", others, on) for on in ("green",)}
    line("orange, the other digits on green, a ground that was not seen", new_ground, others, ORANGE)
    after = {on: drawn(learned, options.like, others, on) for on in GROUNDS}
    same = all(torch.equal(after[on], before[on]) for on in GROUNDS)
    print(f"samples of {options.like} before and after are the same, bit for bit: {same}")
    cells = [
        [(x[options.each * place : options.each * place + 1].clamp(-1, 1), "") for place in range(len(others))]
        for x in (before["blue"], *unseen.values(), new_ground["green"])
    ]
    names = [f"{options.like}, on blue", *(f"learned, on {on}" for on in GROUNDS), "learned, on green"]
    note = "The word orange, learned from threes and fives, used with the other digits."
    plot.save_table(cells, names, [*map(str, others)], options.out / "textual_inversion.png", note)


if __name__ == "__main__":
    main()
