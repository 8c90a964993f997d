"""Solvers on exact problems: error to the true flow at equal evaluations, beside diffusers' best, in one run.

Three problems with closed-form scores (two mixtures and a Gaussian) on the DDPM of Ho et al. 2020, and two more that no
default was tuned on. The start is the same N(0, I) for all; the truth is the probability flow from there to
sigma / alpha = 1e-5; the error is the root mean square over samples and dimensions of the final x0, so the first and
the last step count. Evaluations are counted. float64.

    python benchmarks/solvers.py                        # the table: every solver of unidiff, and diffusers'
    python benchmarks/solvers.py --orders               # slopes up to N = 1000, diffusers' beside
    python benchmarks/solvers.py --overhead             # 10,000 points in 2-D against a loop written by hand
    python benchmarks/solvers.py --finite               # the default on every process from 2 to 2,000 steps in float32
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

import unidiff as ud
from unidiff.process.level import Level

F64 = torch.float64
PROCESS = ud.DDPM()
NOISIEST = -0.5 * float(PROCESS.level(1.0).log_snr)  # log(sigma / alpha) at t = 1


class Problem(NamedTuple):
    means: Tensor
    covariance: float | Tensor
    samples: int

    def model(self, process: ud.Process) -> ud.GaussianMixture:
        return ud.GaussianMixture(process, self.means, self.covariance)

    def start(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.samples, self.means.shape[1], generator=generator, dtype=F64)


def problems() -> dict[str, Problem]:
    ring = ud.data.Ring()
    grid = torch.cartesian_prod(torch.arange(8), torch.arange(8)).to(F64)
    smooth = 0.09 * (torch.exp(-(torch.cdist(grid, grid) ** 2) / 4.5) + 0.002 * torch.eye(64, dtype=F64))
    signs = torch.randint(0, 2, (10, 64), generator=torch.Generator().manual_seed(0)).to(F64) * 2 - 1
    digits = ud.data.Digits().open().batch(torch.arange(200)).flatten(1).to(F64)
    corners = torch.tensor([[-1.0, 0.0], [0.2, 0.5], [1.0, -1.0]], dtype=F64)
    return {
        "mixture-2d": Problem(torch.as_tensor(ring.means, dtype=F64), ring.std**2, 10_000),
        "gaussian-64d": Problem(torch.zeros(1, 64, dtype=F64), smooth, 1000),
        "mixture-64d": Problem(0.5 * signs, smooth, 1000),
        "uneven-2d": Problem(corners, torch.tensor([0.3, 0.002, 0.05], dtype=F64), 2000),  # nobody tuned on these two
        "digits-64d": Problem(digits, 0.01, 200),
    }


def at_ratio(log_q: float) -> Level:
    """A variance-preserving level where sigma / alpha = e^log_q; the exact denoisers ask for alpha and sigma only."""
    alpha = 1 / math.hypot(1, math.exp(log_q))
    return Level(math.nan, alpha, alpha * math.exp(log_q), -2 * log_q)


def true_flow(problem: Problem, steps: int) -> Tensor:
    """d(u / alpha) / d log q = q eps by RK4, from the start to q = 1e-5."""
    model = problem.model(PROCESS)
    stop = math.log(1e-5)
    h = (stop - NOISIEST) / steps

    def slope(log_q: float, y: Tensor) -> Tensor:
        level = at_ratio(log_q)
        return math.exp(log_q) * model(level.alpha * y, level).eps

    y = problem.start() / at_ratio(NOISIEST).alpha
    for i in range(steps):
        x = NOISIEST + i * h
        a = slope(x, y)
        b = slope(x + h / 2, y + h / 2 * a)
        c = slope(x + h / 2, y + h / 2 * b)
        d = slope(x + h, y + h * c)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
    return y


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def by_unidiff(problem: Problem, solver: ud.Solver, grid: ud.Grid) -> tuple[Tensor, int]:
    model = ud.Counted(problem.model(PROCESS))

    def no_noise(like: Tensor) -> Tensor:
        raise AssertionError("a deterministic solver draws no noise")

    *_, last = solver.trajectory(model, problem.start(), grid.times(PROCESS), no_noise)
    return last.u, model.nfe


def steps_within(solver: ud.Solver, evaluations: int) -> int:
    """The largest number of steps that costs no more evaluations."""
    free = Problem(torch.zeros(1, 1, dtype=F64), 1.0, 1)
    per_step = by_unidiff(free, solver, ud.Tapered(9))[1] - by_unidiff(free, solver, ud.Tapered(8))[1]
    steps = evaluations // per_step + 1
    while steps > 1 and by_unidiff(free, solver, ud.Tapered(steps))[1] > evaluations:
        steps -= 1
    return steps


OURS: dict[str, ud.Solver] = {
    "ExponentialAdams()": ud.ExponentialAdams(),
    "ExponentialAdams(3)": ud.ExponentialAdams(3),
    "ExponentialAdams(5)": ud.ExponentialAdams(5),
    "DPMSolver(2)": ud.DPMSolver(2),
    "DPMSolver(3)": ud.DPMSolver(3),
    "DPMSolverSinglestep(2)": ud.DPMSolverSinglestep(2),
    "DPMSolverSinglestep(3)": ud.DPMSolverSinglestep(3),
    "UniPC(2)": ud.UniPC(2),
    "UniPC(3)": ud.UniPC(3),
    "DEIS(3)": ud.DEIS(3),
    "AdamsBashforth(3)": ud.AdamsBashforth(3),
    "EDMStochastic(churn=0)": ud.EDMStochastic(churn=0.0),
    "Heun()": ud.Heun(),
    "DDIM()": ud.DDIM(),
    "Euler()": ud.Euler(),
}
GRIDS: dict[str, Callable[[int], ud.Grid]] = {
    "Tapered": ud.Tapered,
    "LogSNR": ud.LogSNR,
    "Karras": ud.Karras,
    "Quadratic": ud.Quadratic,
    "Uniform": ud.Uniform,
}


def peers() -> Iterator[tuple[str, Callable[[], object]]]:
    """diffusers' multistep methods, with each of their grids."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    table = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}
    grids: dict[str, dict[str, object]] = {
        "default": {},
        "trailing": {"timestep_spacing": "trailing"},
        "karras": {"use_karras_sigmas": True},
        "lu": {"use_lu_lambdas": True},
        "karras, to sigma_min": {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    }
    for order in (2, 3):
        for grid, options in grids.items():
            for kind in ("midpoint", "heun"):
                options_of_kind = {**table, **options, "solver_order": order, "solver_type": kind}
                yield (
                    f"DPM++ {order}M {kind}, {grid}",
                    lambda o=options_of_kind: diffusers.DPMSolverMultistepScheduler(**o),
                )
            if grid != "lu":
                yield (
                    f"UniPC {order}, {grid}",
                    lambda o={**table, **options, "solver_order": order}: diffusers.UniPCMultistepScheduler(**o),
                )
            if grid in ("default", "trailing", "karras"):
                yield (
                    f"DEIS {order}, {grid}",
                    lambda o={**table, **options, "solver_order": order}: diffusers.DEISMultistepScheduler(**o),
                )


def by_peer(problem: Problem, make: Callable[[], object], steps: int) -> Tensor:
    """diffusers' scheduler with the exact noise at its own sigmas, so that no rounding of its timesteps counts."""
    scheduler, model, x = make(), problem.model(PROCESS), problem.start()
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps):
        level = at_ratio(math.log(float(scheduler.sigmas[i])))
        x = scheduler.step(model(x, level).eps, t, x).prev_sample
    return x


def table(counts: list[int], truth_steps: int) -> None:
    for name, problem in problems().items():
        truth = true_flow(problem, truth_steps)
        doubt = rms(true_flow(problem, truth_steps // 2) - truth) / 15
        print(f"\n{name}: {problem.samples} samples; error of the truth about {doubt:.0e}")
        print(f"  {'':44s}" + "".join(f"{n:>10d}" for n in counts))
        for label, solver in OURS.items():
            for grid_name, grid in GRIDS.items():
                if grid_name != "Tapered" and label not in (
                    "ExponentialAdams()",
                    "DPMSolver(3)",
                    "UniPC(3)",
                    "DEIS(3)",
                ):
                    continue
                errors = [rms(by_unidiff(problem, solver, grid(steps_within(solver, n)))[0] - truth) for n in counts]
                print(f"  {label + ', ' + grid_name:44s}" + "".join(f"{e:10.1e}" for e in errors), flush=True)
        best: list[tuple[float, str]] = [(math.inf, "")] * len(counts)
        for label, make in peers():
            for column, n in enumerate(counts):
                try:
                    error = rms(by_peer(problem, make, n) - truth)
                except (IndexError, RuntimeError, ValueError):
                    continue
                if error < best[column][0]:
                    best[column] = error, label
        print(f"  {'best of diffusers':44s}" + "".join(f"{e:10.1e}" for e, _ in best))
        for n, (_, label) in zip(counts, best):
            print(f"      at {n}: {label}")


def orders() -> None:
    """Slopes of the error from N = 50 to 1000, first and last step included.

    On the DDPM of the table no solver sees less noise than sigma / alpha = 0.01, and what happens below is a guess
    that more steps do not mend. So our slopes are measured on a process that goes down to 1e-4.
    """
    process = ud.EDM(sigma_min=1e-4, sigma_max=math.exp(NOISIEST))
    counts = [50, 100, 200, 500, 1000]

    def report(label: str, errors: list[float]) -> None:
        slopes = [
            math.log(a / b) / math.log(n / m) if a > 0 and b > 0 else math.nan
            for a, b, m, n in zip(errors, errors[1:], counts, counts[1:])
        ]
        print(f"  {label:34s}" + "".join(f"{e:9.1e}" for e in errors) + "   " + " ".join(f"{s:5.2f}" for s in slopes))

    for name in ("mixture-2d", "gaussian-64d"):
        problem = problems()[name]._replace(samples=100)
        model = problem.model(process)
        start = problem.start() / at_ratio(NOISIEST).alpha

        def run(solver: ud.Solver, steps: int, model: ud.Denoiser = model, start: Tensor = start) -> Tensor:
            *_, last = solver.trajectory(model, start, ud.Tapered(steps, low=1e-3).times(process), torch.zeros_like)
            return last.u

        truth = run(ud.ExponentialAdams(5), 6000)
        print(f"\n{name}, N = {counts}")
        for label in ("ExponentialAdams()", "ExponentialAdams(3)", "ExponentialAdams(5)", "DPMSolver(2)", "UniPC(2)"):
            report(label, [rms(run(OURS[label], n) - truth) for n in counts])
        on_ddpm = true_flow(problem, 3000)
        for label, make in peers():
            if label.endswith(("default", "karras")) and "heun" not in label:
                errors = []
                for n in counts:
                    try:
                        errors.append(rms(by_peer(problem, make, n) - on_ddpm))
                    except (IndexError, RuntimeError, ValueError):
                        errors.append(math.nan)
                report(f"diffusers {label}", errors)


def overhead(repeats: int) -> None:
    """50 steps, 10,000 points in 2-D, exact score, from given noise: a solver against the loop written by hand."""
    model = problems()["mixture-2d"].model(PROCESS)
    seeds = 10_000
    times = ud.Uniform(50).times(PROCESS)
    start = ud.Seeded(range(seeds))(torch.empty(seeds, 2))

    @torch.no_grad()
    def by_hand() -> Tensor:
        levels = PROCESS.levels_at(times[:-1])
        u = start
        for t, s in pairwise(levels):
            x0, eps, *_ = model(u, t)
            u = s.alpha * x0 + s.sigma * eps
        return model(u, levels[-1]).x0

    @torch.no_grad()
    def by_library(solver: ud.Solver) -> Tensor:
        *_, last = solver.trajectory(model, start, times, torch.zeros_like)
        return last.u

    runs = {
        "by hand, DDIM": by_hand,
        "DDIM": lambda: by_library(ud.DDIM()),
        "ExponentialAdams": lambda: by_library(ud.ExponentialAdams()),
    }
    torch.testing.assert_close(runs["DDIM"](), by_hand(), rtol=1e-4, atol=1e-4)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    base = seconds["by hand, DDIM"]
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, base))
        print(f"  {name:20s} median {statistics.median(values):.3f} s   min {min(values):.3f} s   ratio {ratio:.3f}")


def finite() -> None:
    """The default solver and grid in float32, from 2 to 2,000 steps, on every process: the worst |x0|."""
    processes = [ud.DDPM(), ud.DDPM(1000, ud.ZeroTerminalSNR()), ud.NCSN(0.01, 50.0, 100), ud.VPSDE(), ud.SubVPSDE()]
    for process in [*processes, ud.VESDE(), ud.EDM(), ud.FlowMatching()]:
        model = problems()["mixture-2d"].model(process)
        worst = 0.0
        for steps in (2, 3, 4, 5, 7, 10, 20, 50, 100, 200, 500, 1000, 2000):
            x = ud.sample(model, grid=ud.Tapered(steps), seeds=64).x
            worst = max(worst, float(x.abs().max())) if bool(x.isfinite().all()) else math.nan
        print(f"  {process!r:110s} largest |x0| {worst:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--truth-steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=9)
    for name in ("orders", "overhead", "finite"):
        parser.add_argument(f"--{name}", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if arguments.orders:
        orders()
    elif arguments.overhead:
        overhead(arguments.repeats)
    elif arguments.finite:
        finite()
    else:
        table(arguments.nfe, arguments.truth_steps)


if __name__ == "__main__":
    main()
