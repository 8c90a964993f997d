"""What `unidiff tune` gains on the exact problems of solvers.py, on seeds that it has not seen.

Beside it stand the default, the best of all multistep methods and grids of diffusers, chosen for each problem by
looking at the answer, and, at 10 evaluations, the published schedules of Align Your Steps (Sabour et al. 2024, the
10-step noise scales of Stable Diffusion 1.5 and XL; best of the default solver and UniPC(2), DPMSolver(2) on them):
they were fitted to other models, so that they are points of reference, no rivals. Problems that were tuned on each
other's models show what a fit is worth elsewhere.

    python benchmarks/tuning.py [--nfe 5 10] [--count 256] [--only mixture-2d]
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from solvers import F64, PROCESS, at_ratio, peers, problems, rms
from torch import Tensor

import unidiff as ud

ALIGN_YOUR_STEPS = {
    "1.5": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "XL": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
}


def published_grid(noise_scales: tuple[float, ...], process: ud.Process) -> ud.FixedGrid:
    """As many evaluations as a published schedule, at its noise scales but for the process's own first and last."""
    inner = torch.tensor(noise_scales[1:-1], dtype=F64)
    return ud.FixedGrid(tuple(process.time_at(-2 * inner.log()).tolist()))


def peer_error(model: ud.Denoiser, make: Callable[[], Any], steps: int, start: Tensor, truth: Tensor) -> float:
    """The error of a scheduler of diffusers with the exact noise at its own sigmas."""
    try:
        scheduler, x = make(), start
        scheduler.set_timesteps(steps)
        for i, t in enumerate(scheduler.timesteps):
            level = at_ratio(math.log(float(scheduler.sigmas[i])))
            x = scheduler.step(model(x, level).eps, t, x).prev_sample
    except (IndexError, RuntimeError, ValueError):  # a grid that has not so many steps
        return math.inf
    return rms(x - truth)


@torch.no_grad()
def measure(name: str, nfes: list[int], count: int, others: bool) -> None:
    """Print the rows of one problem."""
    every = {key: problem.model(PROCESS) for key, problem in problems().items()}
    model = every[name]
    held = range(count, 2 * count)
    truth = ud.evaluation.reference_flow(model, model.shape, held).x
    start = PROCESS.start(ud.Seeded(held), torch.empty(count, *model.shape, dtype=F64))

    def error(solver: ud.Solver, grid: ud.Grid) -> float:
        return rms(ud.sample(model, solver, grid, seeds=held, dtype=F64).x - truth)

    for nfe in nfes:
        best = min(peer_error(model, make, nfe, start, truth) for _, make in peers())
        words = f"{name}, {nfe}: default {error(ud.ExponentialAdams(), ud.Tapered(nfe)):.1e}, diffusers {best:.1e}"
        if nfe == 10:
            solvers = (ud.ExponentialAdams(), ud.UniPC(2), ud.DPMSolver(2))
            for key, scales in ALIGN_YOUR_STEPS.items():
                grid = published_grid(scales, PROCESS)
                words += f", AYS {key} {min(error(solver, grid) for solver in solvers):.1e}"
        same = [(key, other) for key, other in every.items() if others and key != name and other.shape == model.shape]
        for label, coefficients in (("tuned", False), ("with weights", True)):
            begun = time.perf_counter()
            fit = ud.tune(model, nfe, seeds=count, held_out=held, coefficients=coefficients, others=same)
            words += f", {label} {fit.error:.1e} (training {fit.training_error:.1e}, of the best {fit.error / best:.2f}"
            elsewhere = ", ".join(f"{row.what} {row.ratio:.2f}" for row in fit.rows if row.what and row.ratio)
            words += f", {time.perf_counter() - begun:.0f} s"
            words += f"; of the default elsewhere: {elsewhere})" if same else ")"
        print(words, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--only", nargs="+", default=list(problems()))
    parser.add_argument("--elsewhere", action="store_true", help="Judge on the other problems of the same shape, too.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in arguments.only:
        measure(name, arguments.nfe, arguments.count, arguments.elsewhere)


if __name__ == "__main__":
    main()
