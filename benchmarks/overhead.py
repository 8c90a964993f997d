"""What the library costs per step: `ud.sample` against the loop that a user would write by hand.

Both run DDIM over the 1000 native times of DDPM with a network that does nothing, on one sample of shape (1, 8, 8) and
one thread, so that everything measured is overhead. The two are timed in turn, several times over: other work on the
machine then touches both alike, and the minimum of each is nearest to its time on an idle machine.

    python benchmarks/overhead.py --repeats 9
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time

import torch
from torch import Tensor, nn

import unidiff as ud

SHAPE = (1, 8, 8)
STEPS = 1000


class Constant(nn.Module):
    """A network that costs nothing: the same answer whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("answer", torch.zeros(1, *SHAPE))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.answer


def coefficients() -> list[tuple[float, float, float]]:
    """For each step (1000 t, a, b) with x_s = a x_t + b eps: DDIM (Song et al. 2021, eq. 12 with sigma = 0)."""
    beta = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    bar = [1.0, *torch.cumprod(1 - beta, 0).tolist()]  # alpha-bar_0 = 1: the last step is the denoise
    rows = []
    for i in range(STEPS, 0, -1):
        a = (bar[i - 1] / bar[i]) ** 0.5
        rows.append((float(i), a, (1 - bar[i - 1]) ** 0.5 - a * (1 - bar[i]) ** 0.5))
    return rows


@torch.no_grad()
def by_hand(network: nn.Module, rows: list[tuple[float, float, float]]) -> Tensor:
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    for t, a, b in rows:
        eps = network(x, torch.full((1,), t))
        x = a * x + b * eps
    return x


def by_library(denoiser: ud.Denoiser) -> Tensor:
    return ud.sample(denoiser, ud.DDIM(), ud.Native(), SHAPE, seeds=1).x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="how often each of the two is timed (default 9)")
    parser.add_argument("--profile", action="store_true", help="print where the library spends its time instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    network = Constant().eval()
    rows = coefficients()
    denoiser = ud.NeuralDenoiser(ud.DDPM(T=STEPS), ud.Eps(), network).eval()
    # The same mathematics: x is multiplied by up to 1 / sqrt(alpha-bar_T) = 157 on the way, in float32.
    torch.testing.assert_close(by_library(denoiser), by_hand(network, rows), rtol=1e-3, atol=1e-3)

    if arguments.profile:
        with cProfile.Profile() as profile:
            by_library(denoiser)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return

    runs = {"by hand": lambda: by_hand(network, rows), "ud.sample": lambda: by_library(denoiser)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    micro = {name: [1e6 * s / STEPS for s in values] for name, values in seconds.items()}
    print(f"microseconds per step, {STEPS} steps, {arguments.repeats} repeats, torch {torch.__version__}")
    for name, values in micro.items():
        print(f"  {name:10s} median {statistics.median(values):6.1f}   min {min(values):6.1f}")
    median = statistics.median(micro["ud.sample"]) / statistics.median(micro["by hand"])
    print(f"  ratio      median {median:6.2f}   min {min(micro['ud.sample']) / min(micro['by hand']):6.2f}")


if __name__ == "__main__":
    main()
