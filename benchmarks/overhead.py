"""What the library costs per step: `ud.sample` against the loop that a user would write by hand.

A network that does nothing, on one sample of shape (1, 28, 28) and one thread, so that everything measured is overhead.
The loop by hand does DDIM's arithmetic with two numbers a step that were computed before it.

    python benchmarks/overhead.py --repeats 15
    python benchmarks/overhead.py --first                      # with nothing kept of earlier runs on the same grid
    python benchmarks/overhead.py --profile "default solver"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import count, pairwise

import torch
from rows import Row, compare, machine, profile, show
from torch import Tensor, nn

import unidiff as ud

SHAPE = (1, 28, 28)
STEPS = 500
PROCESS = ud.DDPM()


class Constant(nn.Module):
    """A network that costs nothing: the same answer whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("answer", torch.zeros(1, *SHAPE))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.answer


def coefficients(process: ud.Process, grid: ud.Grid) -> list[tuple[float, float, float]]:
    """For each step (1000 t, a, b) with u_s = a u_t + b eps: DDIM (Song et al. 2021, eq. 12 with sigma = 0)."""
    levels = process.levels_at(grid.times(process))
    rows = []
    for t, s in pairwise(levels):
        alpha, sigma = (1.0, 0.0) if s.time == 0 else (s.alpha, s.sigma)  # the last step is the denoise
        rows.append((1000 * t.time, alpha / t.alpha, sigma - alpha / t.alpha * t.sigma))
    return rows


@torch.no_grad()
def by_hand(network: nn.Module, rows: list[tuple[float, float, float]], noise: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = ud.Seeded([0])(torch.empty(1, *SHAPE))
    for t, a, b in rows:
        eps = network(x, torch.full((1,), t))
        x = a * x + b * eps
        if noise:
            x = x + noise * torch.randn(x.shape, generator=generator)
    return x


def cases(first: bool = False) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], float]]:
    """Name -> ours, the loop by hand, and the goal of their ratio; with `first` each run of ours has a new process."""
    network = Constant().eval()
    denoiser = ud.NeuralDenoiser(PROCESS, ud.Eps(), network).eval()
    grid, rows = ud.Uniform(STEPS), coefficients(PROCESS, ud.Uniform(STEPS))
    numbers = count(1)

    def ours(solver: ud.Solver) -> Callable[[], Tensor]:
        def run() -> Tensor:
            model = denoiser
            if first:  # nothing is kept of a schedule that was not there before
                process = ud.DDPM(schedule=ud.Linear(beta_max=0.02 + 1e-9 * next(numbers)))
                model = ud.NeuralDenoiser(process, ud.Eps(), network).eval()
            return ud.sample(model, solver, grid, SHAPE, seeds=1).x

        return run

    def hand() -> Tensor:
        return by_hand(network, rows)

    return {
        "DDIM": (ours(ud.DDIM()), hand, 1.25),
        "default solver": (ours(ud.ExponentialAdams()), hand, 3.0),
        "DPMSolver": (ours(ud.DPMSolver()), hand, 3.0),
        "UniPC": (ours(ud.UniPC()), hand, 3.0),
        "Heun, two evaluations": (ours(ud.Heun()), hand, 3.0),
        "Ancestral, to a loop with noise": (ours(ud.Ancestral()), lambda: by_hand(network, rows, noise=0.1), 1.25),
    }


def measure(repeats: int, first: bool = False) -> list[Row]:
    """The rows of this benchmark."""
    torch.set_num_threads(1)
    runs = cases(first)
    ddim, hand, _ = runs["DDIM"]
    # The same mathematics: u is multiplied by up to 1 / sqrt(alpha-bar_T) = 157 on the way, in float32.
    torch.testing.assert_close(ddim(), hand(), rtol=1e-3, atol=1e-3)
    return [
        compare(f"{name}, {STEPS} steps", ours, reference, goal, repeats, steps=STEPS)
        for name, (ours, reference, goal) in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="how often each pair is timed (default 15)")
    parser.add_argument("--first", action="store_true", help="each run with a process that was not there before")
    parser.add_argument("--profile", choices=cases(), help="print where the library spends its time instead")
    arguments = parser.parse_args()
    if arguments.profile:
        torch.set_num_threads(1)
        run, _, _ = cases(arguments.first)[arguments.profile]
        profile(run)
        return
    show(measure(arguments.repeats, arguments.first))
    print(machine())


if __name__ == "__main__":
    main()
