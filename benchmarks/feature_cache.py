"""What does caching features save on a CPU, and what does it cost in error?

A trained run is sampled plainly and with `FeatureCache`, by the default solver and by DDIM. Seconds are those of this
process, beside the plain model's at the same times; errors are the rms distance from the same samples by the default
solver in four times as many steps. The plain model with as many steps as there are whole evaluations is what caching
has to beat.

    python benchmarks/feature_cache.py runs/ddpm_mnist_cpu
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rows import Row, compare, machine

import unidiff as ud

CACHES = [
    ud.FeatureCache(interval, depth, order) for interval, depth in ((2, 1), (2, 2), (3, 2)) for order in (0, 1, 2)
]


def measure(repeats: int) -> list[Row]:
    """Sampling by a network with random weights, through features at every second and third time, beside the plain."""
    networks = {
        "U-Net of ddpm_mnist_cpu": ud.UNet((1, 28, 28), width=32, multipliers=(1, 2), blocks=2, patch=2, groups=8),
        "DiT, 6 blocks of width 192": ud.DiT((1, 28, 28), patch=4, width=192, depth=6, heads=6),
    }
    made = []
    for name, network in networks.items():
        model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network.eval())
        for interval in (2, 3):
            ways = [ud.FeatureCache(interval).apply(model), model]
            runs = [functools.partial(ud.sample, way, ud.DDIM(), ud.Uniform(12), seeds=16) for way in ways]
            made.append(compare(f"FeatureCache({interval}) on a CPU, {name}", *runs, 1 / 1.5, repeats, steps=12))
    return made


def lines(model: ud.Denoiser, solver: ud.Solver, exact: torch.Tensor, steps: int) -> Iterator[str]:
    """A row for each way: its whole evaluations, seconds, how much faster it is than the plain model, and the error."""
    ways = [(f"{n} steps", model, n, n) for n in (steps, -(-steps // 2), -(-steps // 3))]
    for way in CACHES:
        what = f"{steps} steps, interval {way.interval}, depth {way.depth}, order {way.order}"
        ways.append((what, way.apply(model), steps, -(-steps // way.interval)))
    first = 0.0
    for what, denoiser, n, whole in ways:
        begun = time.process_time()
        x = ud.sample(denoiser, solver, ud.Tapered(n), seeds=len(exact)).x
        seconds = time.process_time() - begun
        first = first or seconds
        yield f"| {what} | {whole} | {seconds:.2f} | {first / seconds:.2f} | {(x - exact).square().mean().sqrt():.4f} |"


def main() -> None:
    """Print one table for each solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--count", type=int, default=16, help="samples")
    parser.add_argument("--steps", type=int, default=48, help="times of the grid")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = ud.load(options.run, device="cpu").denoiser
    # The default solver on many more steps stands for the exact flow: doubling them moves it by less than any row.
    exact = ud.sample(model, ud.ExponentialAdams(), ud.Tapered(4 * options.steps), seeds=options.count).x
    print(machine())
    for solver in (ud.ExponentialAdams(), ud.DDIM()):
        print(f"\n{solver!r}\n\n| | whole evaluations | seconds | times faster | rms error |\n|---|---|---|---|---|")
        for line in lines(model, solver, exact, options.steps):
            print(line, flush=True)


if __name__ == "__main__":
    main()
