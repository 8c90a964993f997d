"""The error of the default solver and grid beside the best published method at the same evaluations.

The best is that of the multistep methods and grids of diffusers, chosen for each problem and each number of evaluations
by looking at the answer; ours has no such choice. The problems are the exact ones of solvers.py, two more, two networks
that are trained here for some seconds, points on a ring and digits of 8x8, and the model `shipped:ddpm_digits`. Errors
are root mean squares, to the model's own probability flow (`reference_flow`) of the same starts, those of the seeds
that follow the ones which tuning.py fits to.

    python benchmarks/default_solver.py [--only uneven-2d "network, ring"]
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from rows import Row, machine, show
from solvers import F64, PROCESS, Problem, at_ratio, peers, problems, rms
from torch import Tensor

import unidiff as ud
from unidiff.process.level import Level

COUNTS = (5, 10, 20, 50, 100)


class Case:
    """A model and its held-out samples: the seeds count, ..., 2 count - 1."""

    def __init__(self, model: ud.Denoiser, shape: tuple[int, ...], count: int, dtype: torch.dtype = F64) -> None:
        self.model, self.shape, self.count, self.dtype = model, shape, count, dtype
        self.held = range(count, 2 * count)
        self.flow = {"tolerance": 1e-5 if model.closed_form else 1e-4, "most_steps": 512, "dtype": dtype}
        self.start = PROCESS.start(ud.Seeded(self.held), torch.empty(count, *shape, dtype=dtype))

    @cached_property
    def truth(self) -> Tensor:
        """The ends of the flow."""
        return ud.evaluation.reference_flow(self.model, self.shape, self.held, **self.flow).x

    def error(self, solver: ud.Solver, grid: ud.Grid) -> float:
        """That of one of our solvers."""
        return rms(ud.sample(self.model, solver, grid, self.shape, self.held, dtype=self.dtype).x - self.truth)

    def of_default(self, evaluations: int) -> float:
        """The error of the default; a step costs an evaluation."""
        return self.error(ud.ExponentialAdams(), ud.Tapered(evaluations))

    def of_best(self, evaluations: int) -> tuple[float, str]:
        """The least error of all peers, and whose it is."""
        return min((self._of_peer(make, evaluations), name) for name, make in peers() if "heun" not in name)

    def _of_peer(self, make: Callable[[], Any], steps: int) -> float:
        """With the exact noise at the peer's own sigmas."""
        try:
            scheduler, x = make(), self.start
            scheduler.set_timesteps(steps)
            for i, t in enumerate(scheduler.timesteps):
                level = self._level(math.log(float(scheduler.sigmas[i])))
                x = scheduler.step(self.model(x, level).eps, t, x).prev_sample
        except (IndexError, RuntimeError, ValueError):  # a grid that has not so many steps
            return math.inf
        return rms(x - self.truth)

    def _level(self, log_q: float) -> Level:
        if self.model.closed_form:
            return at_ratio(log_q)
        return PROCESS.level(PROCESS.time_at(torch.tensor(-2 * log_q, dtype=F64)))


def exact(problem: Problem) -> Case:
    """Fewer samples in 64 dimensions."""
    dimension = problem.means.shape[1]
    return Case(problem.model(PROCESS), (dimension,), 128 if dimension == 2 else 32)


def further() -> dict[str, Problem]:
    """Two more problems: a curve without thickness, and data whose directions differ in scale by a factor of 100."""
    moons = ud.data.TwoMoons().open()
    scales = torch.logspace(-2, 0, 16, dtype=F64)
    centres = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=F64)
    return {
        "points-2d": Problem(moons.batch(torch.arange(0, len(moons), len(moons) // 100)).to(F64), 1e-8, 128),
        "scales-16d": Problem(centres * scales, scales.square().diag(), 128),
    }


def trained(data: Tensor, network: torch.nn.Module, steps: int, count: int, dtype: torch.dtype = F64) -> Case:
    """A network after a short training."""
    model = ud.NeuralDenoiser(PROCESS, ud.Eps(), network)
    settings = ud.Training(steps, batch=64, lr=2e-3, ema=0.99, precision="fp32")
    model = ud.train(model, data, ud.Denoising(), settings)  # the average, as every run is sampled
    return Case(model.to(dtype).eval().requires_grad_(False), tuple(data.shape[1:]), count, dtype)


def shipped(name: str) -> Case:
    """A model that comes with the library."""
    return Case(ud.load(f"shipped:{name}").denoiser.eval().requires_grad_(False), (1, 8, 8), 24, torch.float32)


def cases() -> dict[str, Callable[[], Case]]:
    ring = ud.data.Ring().open()
    digits = ud.data.Digits().open()
    small: dict[str, Any] = {"width": 16, "multipliers": (1, 2), "blocks": 1}
    every = {**problems(), **further()}
    return {
        **{name: lambda problem=problem: exact(problem) for name, problem in every.items()},  # type: ignore[misc]
        "network, ring": lambda: trained(ring.batch(torch.arange(len(ring))), ud.MLP((2,)), 4000, 64),
        "network, digits": lambda: trained(
            digits.batch(torch.arange(1500)), ud.UNet((1, 8, 8), **small), 600, 24, torch.float32
        ),
        "shipped:ddpm_digits": lambda: shipped("ddpm_digits"),
    }


def opened(name: str) -> Case:
    """A case whose network, if any, is the same whatever was done before."""
    torch.manual_seed(0)
    return cases()[name]()


def measure(only: list[str] | None = None, counts: tuple[int, ...] = COUNTS) -> list[Row]:
    """The rows of this benchmark, at these numbers of evaluations."""
    torch.set_num_threads(1)
    rows = []
    for name in only or cases():
        case = opened(name)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for count in counts:
                ours, best = case.of_default(count), case.of_best(count)[0]
                what = f"error of the default, {name}, {count} evaluations"
                rows.append(Row(what, ours, best, ours / best, 1.0, number=True))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=cases(), metavar="CASE", help="the cases to measure")
    show(measure(parser.parse_args().only))
    print(machine())


if __name__ == "__main__":
    main()
