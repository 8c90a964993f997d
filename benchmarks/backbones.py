"""Forward passes of the networks here against diffusers' of the same size and the same weights.

Both are timed in turn, several times over, so that other work on the machine touches both alike: the ratio of the
minima is nearest to that on an idle machine, the median of the ratios of neighbouring runs says how sure it is. That
the two answers are the same is checked first.

    python benchmarks/backbones.py --repeats 15
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

import unidiff as ud
from unidiff.interop.dit import dit_to_diffusers
from unidiff.interop.unet import unet_to_diffusers

CLASSES = 10
CASES: dict[str, tuple[Callable[[], ud.Backbone], int]] = {
    "DiT-S/2, 4x16x16": (lambda: ud.DiT((4, 16, 16), "S", 2, classes=CLASSES), 4),
    "DiT-S/4, 4x32x32": (lambda: ud.DiT((4, 32, 32), "S", 4, classes=CLASSES), 4),
    "DiT-B/4, 4x32x32": (lambda: ud.DiT((4, 32, 32), "B", 4, classes=CLASSES), 1),
    "U-Net, width 32, 1x28x28": (
        lambda: ud.UNet((1, 28, 28), 32, (1, 2, 2), 1, (7,), heads=1, groups=8, classes=CLASSES),
        8,
    ),
    "U-Net, width 64, 3x32x32": (
        lambda: ud.UNet((3, 32, 32), 64, (1, 2, 2), 2, (16, 8), heads=1, groups=32, classes=CLASSES),
        2,
    ),
    "U-Net, all options, 3x32x32": (
        lambda: ud.UNet(
            *((3, 32, 32), 64, (1, 2), 1, (16,), None),
            **{"groups": 32, "classes": CLASSES, "scale_shift": True, "residual_resampling": True, "head_channels": 32},
        ),
        2,
    ),
}


def twin(network: ud.Backbone) -> Any:
    """Diffusers' network of the same weights."""
    if isinstance(network, ud.DiT):
        config, state = dit_to_diffusers(network)
        theirs: Any = diffusers.DiTTransformer2DModel(**config)
    else:
        assert isinstance(network, ud.UNet)
        config, state = unet_to_diffusers(network)
        theirs = diffusers.UNet2DModel(**config)
    theirs.load_state_dict(state)
    return theirs.eval()


def seconds(call: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@torch.no_grad()
def main() -> None:
    """Print one row for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--repeats", type=int, default=15, help="runs of each, in turn [default: 15]")
    repeats = parser.parse_args().repeats
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{'network':30}{'batch':>6}{'weights':>12}{'ours ms':>10}{'theirs ms':>11}{'ratio':>8}{'median':>8}")
    for name, (make, count) in CASES.items():
        torch.manual_seed(0)
        ours = make().eval()
        for p in ours.parameters():
            nn.init.normal_(p, std=max(1, p[0].numel()) ** -0.5)
        theirs = twin(ours)
        x, c, label = torch.randn(count, *ours.shape), torch.rand(count) * 1000, torch.arange(count) % CLASSES

        def one(ours: ud.Backbone = ours, x: Tensor = x, c: Tensor = c, label: Tensor = label) -> Tensor:
            return ours(x, c, label=label)

        def other(theirs: Any = theirs, x: Tensor = x, c: Tensor = c, label: Tensor = label) -> Tensor:
            return theirs(x, c, class_labels=label, return_dict=False)[0]

        assert (one() - other()).abs().max() < 1e-4 * one().abs().max()
        pairs = [(seconds(one), seconds(other)) for _ in range(repeats)]
        first, second = (min(column) for column in zip(*pairs))
        median = statistics.median(a / b for a, b in pairs)
        weights = sum(p.numel() for p in ours.parameters())
        row = f"{name:30}{count:6}{weights:12,}{first * 1e3:10.1f}{second * 1e3:11.1f}{first / second:8.3f}"
        print(f"{row}{median:8.3f}", flush=True)


if __name__ == "__main__":
    main()
