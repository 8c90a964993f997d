"""The error of the default solver and grid beside the best published method at the same evaluations.

The best is that of the multistep methods and grids of diffusers, chosen for each problem and each number of evaluations
by looking at the answer; ours has no such choice. The problems are the exact ones of solvers.py with fewer samples, and
two networks that are trained here for a minute: points on a ring, and digits of 8x8.

    python benchmarks/default_solver.py
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable

import torch
from rows import Row, machine, show
from solvers import F64, PROCESS, Problem, at_ratio, peers, problems, rms, true_flow
from torch import Tensor

import unidiff as ud
from unidiff.process.level import Level

COUNTS = (5, 10, 20, 50, 100)


class Case:
    """A model with a start and the end of its flow."""

    def __init__(self, model: ud.Denoiser, start: Tensor, truth: Tensor, level: Callable[[float], Level]) -> None:
        self.model, self.start, self.truth, self.level = model, start, truth, level

    def of_default(self, evaluations: int) -> float:
        """The error of the default; a step costs an evaluation."""
        times = ud.Tapered(evaluations).times(PROCESS)
        *_, last = ud.ExponentialAdams().trajectory(self.model, self.start, times, torch.zeros_like)
        return rms(last.u - self.truth)

    def of_best(self, evaluations: int) -> float:
        """The least error of all peers."""
        return min(self._of_peer(make, evaluations) for name, make in peers() if "heun" not in name)

    def _of_peer(self, make: Callable[[], object], steps: int) -> float:
        try:
            scheduler, x = make(), self.start
            scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
            for i, t in enumerate(scheduler.timesteps):  # type: ignore[attr-defined]
                level = self.level(math.log(float(scheduler.sigmas[i])))  # type: ignore[attr-defined]
                x = scheduler.step(self.model(x, level).eps, t, x).prev_sample  # type: ignore[attr-defined]
        except (IndexError, RuntimeError, ValueError):  # a grid that has not so many steps
            return math.inf
        return rms(x - self.truth)


def exact(problem: Problem) -> Case:
    problem = problem._replace(samples=min(problem.samples, 32))
    return Case(problem.model(PROCESS), problem.start(), true_flow(problem, 1000), at_ratio)


def trained(data: Tensor, network: torch.nn.Module, steps: int) -> Case:
    """A network after a short training, in float64; the truth is the flow by many steps of the default."""
    model = ud.NeuralDenoiser(PROCESS, ud.Eps(), network)
    ud.train(model, data, ud.Denoising(), ud.Training(steps, batch=64, lr=2e-3, precision="fp32"))
    model = model.double().eval().requires_grad_(False)
    start = torch.randn(8, *data.shape[1:], generator=torch.Generator().manual_seed(1), dtype=F64)
    *_, end = ud.ExponentialAdams().trajectory(model, start, ud.Tapered(300).times(PROCESS), torch.zeros_like)

    def level(log_q: float) -> Level:
        return PROCESS.level(PROCESS.time_at(torch.tensor(-2 * log_q, dtype=F64)))

    return Case(model, start, end.u, level)


def cases() -> dict[str, Callable[[], Case]]:
    ring = ud.data.Ring().open()
    digits = ud.data.Digits().open()
    small = {"width": 16, "multipliers": (1, 2), "blocks": 1}
    return {
        **{name: lambda problem=problem: exact(problem) for name, problem in problems().items()},  # type: ignore[misc]
        "network, ring": lambda: trained(ring.batch(torch.arange(len(ring))), ud.MLP((2,)), 1500),
        "network, digits": lambda: trained(digits.batch(torch.arange(1500)), ud.UNet((1, 8, 8), **small), 600),
    }


def measure() -> list[Row]:
    """The rows of this benchmark."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for name, make in cases().items():
        case = make()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for count in COUNTS:
                ours, best = case.of_default(count), case.of_best(count)
                what = f"error of the default, {name}, {count} evaluations"
                rows.append(Row(what, ours, best, ours / best, 1.0, number=True))
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    show(measure())
    print(machine())


if __name__ == "__main__":
    main()
