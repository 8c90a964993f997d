"""A class-conditional cascade on MNIST, 7x7 to 14x14 to 28x28 pixels, and what conditioning augmentation buys.

The first stage is told the digit, the other two the digit and the means of 2x2 pixels. Each upsampler is trained
without augmentation, with noise on the means, and with a blur of them (Ho et al. 2022, sections 3 and 4).
Of each kind the last stage alone (from real means), the last two (from real means), and the whole cascade draw as many
images; the Frechet distance from test images is that of the `mnist` features, and the digit is that of their
classifier. Beside them stand real training images, and the means of real images repeated over their blocks.

    python benchmarks/cascade.py --out cascade
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from kept_model import trained
from rows import machine
from torch import Tensor
from torch.nn import functional as F

import unidiff as ud
from unidiff import plot
from unidiff.evaluation import frechet_distance, load_features

SOLVER, GRID = ud.ExponentialAdams(), ud.Tapered(20)
KINDS: dict[str, dict[str, Any]] = {"none": {}, "noise 0.15": {"noise": 0.15}, "blur 0.6": {"blur": 0.6}}


def means(x: Tensor) -> Tensor:
    """The means of blocks of 2x2 pixels."""
    return F.avg_pool2d(x, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("cascade"), help="folder of weights and figure")
    parser.add_argument("--count", type=int, default=300, help="samples of each row")
    parser.add_argument("--steps", type=int, nargs=3, default=[3000, 600, 600], help="of training, stage by stage")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    opened = ud.data.MNIST(size=28).open()
    large, labels = opened.examples(torch.arange(len(opened)))
    assert labels is not None
    middle, small = means(large), means(means(large))
    test = ud.data.MNIST(size=28).open("test")
    real, digit = test.examples(torch.arange(options.count))
    assert digit is not None
    features = load_features("mnist")
    reference = features(test.batch(torch.arange(options.count, len(test)))).values

    def of(x: Tensor, name: str) -> Any:
        return ud.TensorSource(x, name, labels=labels)

    def upsampler(side: int, **patch: int) -> ud.UNet:
        more: dict[str, Any] = {"classes": 10, "image": 1, **patch}
        return ud.UNet((1, side, side), width=24, multipliers=(1, 2), blocks=1, groups=8, **more)

    def line(name: str, augmentation: str, x: Tensor) -> None:
        found = features(x.clamp(-1, 1))
        assert found.probabilities is not None
        distance = frechet_distance(found.values, reference)
        right = found.probabilities.argmax(1) == digit
        sure = found.probabilities.amax(1)
        share = f"{float(right.double().mean()):.3f} | {float(sure.mean()):.3f}"
        print(f"| {name} | {augmentation} | {distance.value:.3f} ± {distance.error:.3f} | {share} |", flush=True)

    torch.manual_seed(0)
    base = trained(
        ud.MLP((1, 7, 7), width=256, depth=4, classes=10), of(small, "7x7"), ud.Labels(0.1), options.steps[0],
        options.out / "base.safetensors", warmup=50,
    )  # fmt: skip
    conditionings: dict[str, ud.SuperResolution] = {}
    models: dict[str, dict[int, ud.NeuralDenoiser]] = {}
    rows: dict[str, Tensor] = {}
    for kind, options_of_kind in KINDS.items():
        conditionings[kind] = ud.SuperResolution(2, **options_of_kind)
        given = ud.Joint((ud.Labels(0.1), conditionings[kind]))
        name = kind.replace(" ", "_")
        torch.manual_seed(0)
        to_14 = trained(
            upsampler(14), of(middle, "14x14"), given, options.steps[1], options.out / f"to_14_{name}.safetensors",
            batch=32, warmup=50,
        )  # fmt: skip
        to_28 = trained(
            upsampler(28, patch=2), of(large, "28x28"), given, options.steps[2],
            options.out / f"to_28_{name}.safetensors", batch=32, warmup=50,
        )  # fmt: skip
        models[kind] = {14: to_14, 28: to_28}

    def enlarged(kind: str, side: int, x: Tensor) -> Tensor:
        """Samples of an upsampler, told images of half the side and the digits."""
        given, model = conditionings[kind], models[kind][side]
        uniform = torch.rand(len(x), given.draws, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
        image = given.from_samples(x, (1, side, side), uniform)["image"]
        return ud.sample(model, SOLVER, GRID, seeds=len(x), batch=250, label=digit, image=image).x

    print("| images | augmentation | Frechet distance | digit right | confidence |")
    print("|---" * 5 + "|")
    line("real, of training", "", large[: options.count])
    line("real, means of 2x2 pixels", "", means(real).repeat_interleave(2, 2).repeat_interleave(2, 3))
    first = ud.sample(base, SOLVER, GRID, seeds=len(digit), label=digit).x
    for kind in KINDS:
        line("14 to 28, of real means", kind, enlarged(kind, 28, means(real)))
        line("7 to 14 to 28, of real means", kind, enlarged(kind, 28, enlarged(kind, 14, means(means(real)))))
        rows[f"14, {kind}"] = enlarged(kind, 14, first)
        rows[f"28, {kind}"] = enlarged(kind, 28, rows[f"14, {kind}"])
        line("the whole cascade", kind, rows[f"28, {kind}"])
    shown = [int(rows_of[0]) for d in range(10) if len(rows_of := (digit == d).nonzero())]
    cells = [[(x.clamp(-1, 1)[i : i + 1], "") for i in shown] for x in [first, *rows.values()]]
    note = "The cascade, stage by stage: 7x7, 14x14 and 28x28 pixels, with each augmentation; the same first stage."
    plot.save_table(cells, ["7", *rows], [str(int(digit[i])) for i in shown], options.out / "cascade.png", note)


if __name__ == "__main__":
    main()
