"""What does one option save where a network draws samples on a CPU?

Each row is of processes of its own, since one of the options, `Compiled`, also lets its process keep the memory that it
frees: seconds of a sampling step by the plain network first, then through the option. Programs that are compiled are
kept on the disk; the seconds of the first evaluation, which compiles, are said on standard error.

    python benchmarks/inference.py --batch 1 16 64
    python benchmarks/inference.py --networks "U-Net, 8x8" --batch 64 --option "FeatureCache(2)"
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from rows import Row, machine, show
from torch import nn

import unidiff as ud

STEPS, RUNS = 6, 7
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net of ddpm_mnist_cpu": lambda: ud.UNet((1, 28, 28), width=32, multipliers=(1, 2), blocks=2, patch=2, groups=8),
    "U-Net, 8x8": lambda: ud.UNet((1, 8, 8), width=32, multipliers=(1, 2), blocks=1, groups=8),
    "DiT, 6 blocks of width 192": lambda: ud.DiT((1, 28, 28), patch=4, width=192, depth=6, heads=6),
}
OPTIONS: dict[str, Callable[[], ud.Acceleration]] = {
    "Compiled(channels_last)": lambda: ud.Compiled(channels_last=True),
    "FeatureCache(2)": lambda: ud.FeatureCache(channels_last=True),
}


def work(name: str, option: str, batch: int) -> tuple[float, float, float]:
    """In a process of its own: seconds of a step through the option, and plainly; seconds of its first evaluation."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.05)
    plain = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network.eval().requires_grad_(False))

    def step(model: ud.Denoiser) -> float:
        begun = time.process_time()
        ud.sample(model, ud.DDIM(), ud.Uniform(STEPS), seeds=batch)
        return (time.process_time() - begun) / STEPS

    def seconds(model: ud.Denoiser) -> float:
        return statistics.median([step(model) for _ in range(RUNS + 1)][1:])

    before = seconds(plain)
    fast = OPTIONS[option]().apply(plain)
    begun = time.perf_counter()
    step(fast)
    return time.perf_counter() - begun, seconds(fast), before


def measure(
    repeats: int,
    batches: Sequence[int] = (16,),
    networks: Sequence[str] = ("U-Net of ddpm_mnist_cpu", "DiT, 6 blocks of width 192"),
    options: Sequence[str] = ("Compiled(channels_last)",),
) -> list[Row]:
    """A row for each network, batch and option: the medians of `repeats` processes."""
    made = []
    for name, batch, option in ((n, b, o) for n in networks for b in batches for o in options):
        pairs = []
        for _ in range(repeats):
            command = [sys.executable, __file__, "--work", json.dumps([name, option, batch])]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            first, *pair = json.loads(answer)
            print(f"{option}, {name}, batch {batch}: first samples after {first:.1f} s", file=sys.stderr, flush=True)
            pairs.append(pair)
        ours, plain = (statistics.median(times) for times in zip(*pairs))
        ratio = statistics.median(a / b for a, b in pairs)
        made.append(Row(f"{option} on a CPU, {name}, batch {batch}", ours, plain, ratio, round(1 / 1.5, 3)))
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="samples drawn together (default 16)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], metavar="NETWORK")
    parser.add_argument("--option", nargs="+", choices=OPTIONS, default=[*OPTIONS], metavar="OPTION")
    parser.add_argument("--repeats", type=int, default=3, help="processes (default 3)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(*json.loads(arguments.work))))
        return
    show(measure(arguments.repeats, arguments.batch, arguments.networks, arguments.option))
    print(machine())


if __name__ == "__main__":
    main()
