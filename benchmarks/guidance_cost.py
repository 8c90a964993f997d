"""What does guidance cost? Time of a guided evaluation, and memory of a classifier's gradients.

- Time: `ClassifierFree` evaluates the conditional and the null prediction as one batch, so a guided evaluation should
  cost what one forward of the network at twice the batch costs. Both are timed in turn, in processor seconds, so that
  other work on the machine touches both alike. The ratio is the median over the rounds.
- Memory: `ClassifierGuidance` keeps the activations of `chunk` samples at a time. Each row is measured in a process of
  its own, on Linux: how far the largest resident set grows in one gradient of the whole batch.

The networks are those of ddpm_mnist_classes_cpu and classifier_mnist_noisy, with fresh weights.

    python benchmarks/guidance_cost.py --repeats 9
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import unidiff as ud

SHAPE, CLASSES = (1, 28, 28), 10
PROCESS = ud.DDPM(T=1000)
MEMORY = [(64, 16), (64, 64), (256, 16), (256, 64), (256, 256)]  # (batch, chunk)


def model(classes: int | None) -> ud.NeuralDenoiser:
    network = ud.UNet(SHAPE, width=32, multipliers=(1, 2), blocks=2, patch=2, classes=classes)
    return ud.NeuralDenoiser(PROCESS, ud.Eps(), network).eval()


def classifier() -> ud.NeuralClassifier:
    network = ud.UNetEncoder(SHAPE, classes=CLASSES, width=32, multipliers=(1, 2), blocks=1, patch=2)
    return ud.NeuralClassifier(PROCESS, network).eval()


@torch.no_grad()
def seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each, taken in turn; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            found[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in found.items()}


def show_time(batch: int, repeats: int) -> None:
    plain = model(CLASSES)
    guided, label = ud.ClassifierFree(plain, 2.0), torch.arange(batch) % CLASSES
    u, level = torch.randn(batch, *SHAPE), PROCESS.level(0.5)
    both = torch.cat([u, u])
    told = torch.cat([label, torch.full_like(label, -1)])
    condition = torch.full((2 * batch,), 1000.0 * level.time)
    runs = {
        "one forward, twice the batch": lambda: plain.backbone(both, condition, label=told),
        "ClassifierFree": lambda: guided(u, level, label=label),
        "two forwards": lambda: (plain(u, level, label=label), plain(u, level)),
    }
    found = seconds(runs, repeats)
    first = found["one forward, twice the batch"]
    print(f"{batch} samples of {SHAPE}, {repeats} repeats")
    for name, values in found.items():
        ratio = statistics.median(value / other for value, other in zip(values, first))
        print(
            f"  {name:30s} min {1e3 * min(values):8.1f} ms ({min(values) / min(first):.3f})   median ratio {ratio:.3f}"
        )


def peak() -> float:
    """Largest resident set so far in megabytes. Not getrusage's, which a new process takes over from its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def grown(batch: int, chunk: int) -> float:
    """Megabytes that the largest resident set grows by in one gradient, after one of a single sample."""
    guided = ud.ClassifierGuidance(model(None), classifier(), 1.0, chunk)
    u, label, level = torch.randn(batch, *SHAPE), torch.arange(batch) % CLASSES, PROCESS.level(0.5)
    with torch.no_grad():
        guided.gradient(u[:1], level, label=label[:1])
        before = peak()
        guided.gradient(u, level, label=label)
    return peak() - before


def show_memory() -> None:
    print("classifier guidance: growth of the resident set in one gradient")
    for batch, chunk in MEMORY:
        command = [sys.executable, __file__, "--grown", str(batch), str(chunk)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  batch {batch:4d}, chunk {chunk:4d}: {float(done.stdout):8.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="how often each is timed (9)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64], help="samples (1, 8 and 64)")
    parser.add_argument("--grown", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.grown:
        print(grown(*options.grown))
        return
    for batch in options.batch:
        show_time(batch, options.repeats)
    if Path("/proc/self/status").exists():
        show_memory()


if __name__ == "__main__":
    main()
