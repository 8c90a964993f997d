"""How cost grows: seconds and memory over batch, resolution, steps and processes, with the exponents fitted to them.

A U-Net of fixed width, sampled by the default solver and trained, on one thread a process. Each point is a process of
its own, whose largest memory is that of the point, less that of a process which has only imported the library. The
exponent is the slope of a straight line through the logarithms, by least squares, of the points in the upper half.

    python benchmarks/cost.py
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from rows import machine

import unidiff as ud


class Point(NamedTuple):
    """Seconds of a processor and MiB at one size."""

    size: int
    seconds: float
    memory: float


class Curve(NamedTuple):
    """One quantity that grows, and what was measured over it."""

    what: str
    over: str
    points: list[Point]

    def exponent(self, column: int) -> float:
        """The slope of log cost over log size in the upper half of the points."""
        upper = self.points[len(self.points) // 2 - 1 :]
        x, y = zip(*((math.log(point.size), math.log(max(point[column], 1e-9))) for point in upper))
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
        return slope / sum((a - mean_x) ** 2 for a in x)


def sampling(resolution: int, batch: int, steps: int) -> None:
    """Draw a batch."""
    network = ud.UNet((1, resolution, resolution), width=16, multipliers=(1, 2), blocks=1)
    ud.sample(ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network.eval()), grid=ud.Tapered(steps), seeds=batch)


def training(resolution: int, batch: int, steps: int) -> None:
    """Train for some steps."""
    network = ud.UNet((1, resolution, resolution), width=16, multipliers=(1, 2), blocks=1)
    x = torch.rand(256, 1, resolution, resolution) * 2 - 1
    model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network)
    ud.train(model, x, ud.Denoising(), ud.Training(steps, batch=batch, precision="fp32"))


def one(work: Callable[[int, int, int], None], sizes: tuple[int, int, int], answer: object) -> None:
    """In a process of its own: the work once to warm up, at its smallest, and once measured."""
    torch.set_num_threads(1)
    work(8, 1, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    work(*sizes)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((seconds, (peak - before) / 1024))  # type: ignore[attr-defined]


def point(work: Callable[[int, int, int], None], resolution: int, batch: int, steps: int) -> tuple[float, float]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unidiff", "torch", __name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=one, args=(work, (resolution, batch, steps), sender))
    process.start()
    sender.close()
    found: tuple[float, float] = receiver.recv()
    process.join()
    return found


def curve(what: str, over: str, sizes: Sequence[int], measure: Callable[[int], tuple[float, float]]) -> Curve:
    return Curve(what, over, [Point(size, *measure(size)) for size in sizes])


def curves() -> list[Curve]:
    """Every curve of the library's own cost."""
    return [
        curve("sampling, 16x16, 10 steps", "batch", (1, 2, 4, 8, 16, 32, 64), lambda n: point(sampling, 16, n, 10)),
        curve("sampling, batch 8, 10 steps", "resolution", (8, 16, 24, 32, 48), lambda n: point(sampling, n, 8, 10)),
        curve("sampling, 16x16, batch 8", "steps", (5, 10, 20, 40, 80), lambda n: point(sampling, 16, 8, n)),
        curve("training, 16x16, 5 steps", "batch", (4, 8, 16, 32, 64), lambda n: point(training, 16, n, 5)),
        curve("training, batch 8, 5 steps", "resolution", (8, 16, 24, 32, 48), lambda n: point(training, n, 8, 5)),
    ]


def table(found: Sequence[Curve]) -> str:
    """The curves as text."""
    lines = []
    for each in found:
        cells = [("over " + each.over, *(str(p.size) for p in each.points), "exponent")]
        cells.append(("seconds", *(f"{p.seconds:.2g}" for p in each.points), f"{each.exponent(1):.2f}"))
        memory = [f"{p.memory:.3g}" for p in each.points]
        cells.append(("MiB", *memory, f"{each.exponent(2):.2f}"))
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines.append(each.what)
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table(curves()))
    print(machine())


if __name__ == "__main__":
    main()
