"""Cost in tokens of linear attention beside softmax attention: the table and the figure of docs/systems/sana.md.

Processor seconds, without gradients, of the attention alone (four heads of 32 features) and of a DiT of two blocks on
one sample, both kinds in turn in one run. The slope is that of the logarithm of the seconds over that of the tokens by
least squares, with its standard error; the last slope is that between the two largest numbers of tokens.

    python benchmarks/linear_attention.py --out linear_attention
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rows import machine

import unidiff as ud
from unidiff.memory import keep_freed_memory
from unidiff.plot import Graph, save_graphs

KINDS: dict[str, ud.Attention] = {"softmax": ud.SoftmaxAttention(), "linear": ud.LinearAttention()}
WIDTH, HEADS = 128, 4


class Slope(NamedTuple):
    """Of a straight line through logarithms: its slope, and the standard error of that."""

    value: float
    error: float


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> Slope:
    """By least squares; the error is nan of two points."""
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in seconds]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y))
    return Slope(slope, math.sqrt(residual / (len(x) - 2) / spread) if len(x) > 2 else math.nan)


def attention_alone(kind: ud.Attention, tokens: int) -> Callable[[], object]:
    """The attention of random queries, keys and values."""
    q, k, v = torch.randn(3, 1, HEADS, tokens, WIDTH // HEADS, generator=torch.Generator().manual_seed(0))
    return lambda: kind.average(q, k, v)


def network(kind: ud.Attention, tokens: int) -> Callable[[], object]:
    """A DiT of two blocks with a token for each pixel."""
    side = 2 ** (int(math.log2(tokens)) // 2)
    torch.manual_seed(0)
    model = ud.DiT((3, side, tokens // side), patch=1, width=WIDTH, depth=2, heads=HEADS, attention=kind).eval()
    x, c = torch.randn(1, *model.shape), torch.tensor([500.0])
    return lambda: model(x, c)


def spent(run: Callable[[], object], least: float) -> float:
    """Processor seconds of one call, over as many calls as fill `least` seconds."""
    calls, start = 0, time.process_time()
    while (passed := time.process_time() - start) < least or not calls:
        run()
        calls += 1
    return passed / calls


@torch.no_grad()
def measured(
    make: Callable[[ud.Attention, int], Callable[[], object]], sizes: Sequence[int], rounds: int, least: float
) -> dict[str, list[float]]:
    """Medians over the rounds, for each kind and size; the kinds in turn, after a call that warms up."""
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for tokens in sizes:
        runs = {name: make(kind, tokens) for name, kind in KINDS.items()}
        for run in runs.values():
            run()
        each = [{name: spent(run, least) for name, run in runs.items()} for _ in range(rounds)]
        for name in KINDS:
            found[name].append(statistics.median(one[name] for one in each))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smallest", type=int, default=256, help="tokens, a power of two")
    parser.add_argument("--largest", type=int, default=16384, help="tokens, a power of two")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--least", type=float, default=0.2, help="processor seconds of a measurement")
    parser.add_argument("--out", type=Path, default=Path("linear_attention"), help="folder of the figure")
    options = parser.parse_args()
    low, high = (size.bit_length() - 1 for size in (options.smallest, options.largest))
    if options.smallest != 2**low or options.largest != 2**high or not 4 <= low < high or options.rounds < 1:
        parser.error("--smallest and --largest must be powers of two, 16 <= smallest < largest; --rounds at least 1")
    torch.set_num_threads(1)
    keep_freed_memory()
    sizes = [2**n for n in range(low, high + 1)]
    graphs = []
    print(machine())
    print(f"| processor ms | {' | '.join(f'{n} tokens' for n in sizes)} | slope | last slope |")
    print("|---" * (len(sizes) + 3) + "|")
    for title, make in {"attention alone": attention_alone, "DiT of two blocks": network}.items():
        seconds = measured(make, sizes, options.rounds, options.least)
        lines = []
        for name, values in seconds.items():
            slope, last = fitted(sizes, values), fitted(sizes[-2:], values[-2:])
            cells = " | ".join(f"{1000 * value:.3g}" for value in values)
            print(
                f"| {title}, {name} | {cells} | {slope.value:.2f} +- {slope.error:.2f} | {last.value:.2f} |", flush=True
            )
            lines.append((f"{name}, slope {slope.value:.2f}", sizes, [1000 * value for value in values]))
        graphs.append(Graph(title, "tokens", "processor ms", lines, "xy"))
    options.out.mkdir(parents=True, exist_ok=True)
    save_graphs(graphs, options.out / "linear_attention.png", "One sample, one thread, without gradients.")


if __name__ == "__main__":
    main()
