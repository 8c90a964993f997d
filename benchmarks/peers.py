"""The same experiments by azula, diffusers, diffrax and unidiff: one mixture with an exact score, one start, one truth.

1. azula's DDIM and ours on azula's own schedule and times: the largest difference of two samples, in float64.
2. Root mean square error to the true flow at equal evaluations, by the samplers of azula and diffusers and by ours.
   azula ends at noise of 0.001; its last state is denoised once more, which counts as an evaluation: all end alike.
3. The probability flow by adaptive methods of order 5: ours (torchdiffeq), and diffrax compiled and not compiled.

Everything is float64 on a CPU, one thread. What is not installed is left out, with a line that says so.

    pip install azula diffrax
    python benchmarks/peers.py
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch
from torch import Tensor

import unidiff as ud
from unidiff.process.level import Level

F64 = torch.float64
LEAST = 1e-3  # alpha_min and sigma_min of azula


@dataclass(frozen=True)
class AzulaVP(ud.Process):
    """VPSchedule of azula: alpha = 0.001^(t^2), sigma^2 = 1 - alpha^2 + 0.001^2."""

    t_min: float = 1e-4

    def log_alpha(self, t: Tensor) -> Tensor:
        return math.log(LEAST) * t**2

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(1 - torch.exp(2 * self.log_alpha(t)) + LEAST**2)


PROCESS = AzulaVP()
RING = ud.data.Ring()


def mixture(process: ud.Process = PROCESS) -> ud.GaussianMixture:
    return ud.GaussianMixture(process, torch.as_tensor(RING.means, dtype=F64), RING.std**2)


def start(count: int) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(1), dtype=F64)


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def until(stop: float, count: int) -> Tensor:
    """Equal times from 1 to `stop`, then 0."""
    return torch.cat([torch.linspace(1, stop, count, dtype=F64), torch.zeros(1, dtype=F64)])


def ours(x: Tensor, solver: ud.Solver, times: Tensor) -> tuple[Tensor, int]:
    model = ud.Counted(mixture())
    *_, last = solver.trajectory(model, x, times, torch.randn_like)
    return last.u, model.nfe


def truth(x: Tensor) -> Tensor:
    """The flow by a method of order 5 in 1,000 steps, ended by one denoise at t_min."""
    return ours(x, ud.ExponentialAdams(5), ud.LogSNR(1000).times(PROCESS))[0]


def azula_model() -> Any:
    """The mixture as a denoiser of azula, which counts its evaluations."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VPSchedule

    class Mixture(Denoiser):
        nfe = 0

        def __init__(self) -> None:
            super().__init__()
            self.schedule = VPSchedule(LEAST, LEAST)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            self.nfe += 1
            return DiracPosterior(mean=mixture()(x_t, PROCESS.level(t)).x0)

    return Mixture()


def by_azula(x: Tensor, sampler: Callable[..., Any], steps: int, stop: float) -> tuple[Tensor, int]:
    """A run of azula's sampler, whose last state is denoised."""
    model = azula_model()
    end = sampler(model, steps=steps, stop=stop, silent=True, dtype=F64)(x)
    return model(end, torch.tensor(stop, dtype=F64)).mean, model.nfe


def equal_ddim(count: int) -> None:
    from azula.sample import DDIMSampler

    x = start(count)
    print("\nDDIM of azula and of unidiff on azula's schedule and times: largest difference of a coordinate")
    for steps in (10, 50):
        stop = 0.02
        theirs, calls = by_azula(x, DDIMSampler, steps, stop)
        own, nfe = ours(x, ud.DDIM(), until(stop, steps + 1))
        print(f"  {steps} steps: {float((theirs - own).abs().max()):.1e}   evaluations {calls} and {nfe}")


def samplers() -> Iterator[tuple[str, Callable[[Tensor, int], tuple[Tensor, int]]]]:
    """Each with a function of a start and a number of evaluations."""
    from azula import sample

    one = PROCESS.t_min
    for name, kind, options, calls in (
        ("azula DDIMSampler", sample.DDIMSampler, {}, 1),
        ("azula HeunSampler", sample.HeunSampler, {}, 2),
        ("azula zABSampler, order 3", sample.zABSampler, {"order": 3}, 1),
        ("azula vABSampler, order 3", sample.vABSampler, {"order": 3}, 1),
        ("azula xEABSampler, order 2", sample.xEABSampler, {"order": 2}, 1),
        ("azula xEABSampler, order 3", sample.xEABSampler, {"order": 3}, 1),
        ("azula REABSampler, order 2", sample.REABSampler, {"order": 2}, 1),
    ):

        def theirs(x: Tensor, n: int, kind: Any = kind, options: Any = options, calls: int = calls) -> Any:
            return by_azula(x, lambda model, **more: kind(model, **options, **more), (n - 1) // calls, one)

        yield name, theirs
    for own, solver, calls in (
        ("unidiff DDIM, Uniform", ud.DDIM(), 1),
        ("unidiff Heun, Uniform", ud.Heun(), 2),
    ):

        def uniform(x: Tensor, n: int, solver: Any = solver, calls: int = calls) -> Any:
            return ours(x, solver, until(one, (n - 1) // calls + 1))

        yield own, uniform
    for own, solver in (
        ("unidiff DDIM, Tapered", ud.DDIM()),
        ("unidiff UniPC, Tapered", ud.UniPC()),
        ("unidiff default (ExponentialAdams, Tapered)", ud.ExponentialAdams()),
    ):
        yield own, lambda x, n, solver=solver: ours(x, solver, ud.Tapered(n).times(PROCESS))


def diffusers_solvers() -> Iterator[tuple[str, Callable[[Tensor, int], Tensor]]]:
    """Two solvers of diffusers with their sigmas, on DDPM; the exact noise is asked for at their own sigmas."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    table = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}
    for name, make in (
        ("DPM++ 2M, Karras", lambda: diffusers.DPMSolverMultistepScheduler(**table, use_karras_sigmas=True)),
        ("UniPC 2, Karras", lambda: diffusers.UniPCMultistepScheduler(**table, use_karras_sigmas=True)),
    ):

        def run(x: Tensor, n: int, make: Any = make) -> Tensor:
            scheduler, model = make(), mixture(ud.DDPM())
            scheduler.set_timesteps(n)
            for i, t in enumerate(scheduler.timesteps):
                q = float(scheduler.sigmas[i])
                level = Level(math.nan, 1 / math.hypot(1, q), q / math.hypot(1, q), -2 * math.log(q))
                x = scheduler.step(model(x, level).eps, t, x).prev_sample
            return x

        yield f"diffusers {name}", run


def errors(count: int, evaluations: tuple[int, ...]) -> None:
    x = start(count)
    print("\nroot mean square error to the true flow, azula's schedule")
    print(f"  {'evaluations':44s}" + "".join(f"{n:>10d}" for n in evaluations))
    exact = truth(x)
    for name, run in samplers():
        row = []
        for n in evaluations:
            end, nfe = run(x, n)
            assert nfe <= n, (name, n, nfe)
            row.append(rms(end - exact))
        print(f"  {name:44s}" + "".join(f"{error:10.1e}" for error in row))


def seconds(run: Callable[[], Any], repeats: int) -> float:
    run()  # compiles, where there is something to compile
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        spent.append(time.process_time() - begin)
    return statistics.median(spent)


def adaptive(count: int, tolerances: tuple[float, ...], repeats: int) -> None:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    means, variance = jnp.asarray(RING.means), RING.std**2
    rate = -math.log(LEAST)

    def velocity(t: Any, u: Any, _: Any) -> Any:
        """The flow of one sample in diffrax's words: f u - g^2 / 2 score."""
        alpha = jnp.exp(-rate * t**2)
        variance_t = 1 - alpha**2 + LEAST**2
        total = alpha**2 * variance + variance_t
        weights = jax.nn.softmax(-((u[..., None, :] - alpha * means) ** 2).sum(-1) / (2 * total))
        score = (weights @ (alpha * means) - u) / total
        f = -2 * rate * t
        g2 = 4 * rate * t * alpha**2 - 2 * f * variance_t
        return f * u - g2 / 2 * score

    term, end = diffrax.ODETerm(velocity), PROCESS.t_min

    def solve(u: Any, tolerance: float) -> Any:
        control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        return diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 1.0, end, None, u, stepsize_controller=control, max_steps=100_000
        )

    x = start(count)
    print(
        "\nprobability flow by Dormand and Prince's pair, the batch sharing its steps: error, work, processor seconds"
    )
    exact = truth(x)
    level = PROCESS.level(torch.tensor(end, dtype=F64))
    compiled = jax.jit(solve, static_argnums=1)
    for tolerance in tolerances:
        flow = ud.ProbabilityFlow("dopri5", rtol=tolerance, atol=tolerance)
        own, nfe = ours(x, flow, until(end, 2))
        spent = seconds(lambda flow=flow: ours(x, flow, until(end, 2)), repeats)
        u = jnp.asarray(x.numpy())
        solution = compiled(u, tolerance)
        last = mixture()(torch.tensor(solution.ys[-1].tolist(), dtype=F64), level).x0
        fast = seconds(lambda t=tolerance, u=u: compiled(u, t).ys.block_until_ready(), repeats)
        begin = time.process_time()
        jax.clear_caches()
        compiled(u, tolerance).ys.block_until_ready()
        first = time.process_time() - begin
        print(
            f"  tolerance {tolerance:.0e}  unidiff {rms(own - exact):.1e}, {nfe} evaluations, {spent:.3f} s    "
            f"diffrax {rms(last - exact):.1e}, {int(solution.stats['num_steps'])} steps, {fast:.4f} s "
            f"({first:.2f} s with compiling)"
        )


def ddpm(count: int, evaluations: tuple[int, ...]) -> None:
    x, process = start(count), ud.DDPM()
    print("\nroot mean square error to the true flow, DDPM")
    print(f"  {'evaluations':44s}" + "".join(f"{n:>10d}" for n in evaluations))

    def run(solver: ud.Solver, times: Tensor) -> Tensor:
        *_, last = solver.trajectory(mixture(process), x, times, torch.randn_like)
        return last.u

    exact = run(ud.ExponentialAdams(5), ud.LogSNR(1000).times(process))
    for name, solve in diffusers_solvers():
        print(f"  {name:44s}" + "".join(f"{rms(solve(x, n) - exact):10.1e}" for n in evaluations))
    row = [rms(run(ud.ExponentialAdams(), ud.Tapered(n).times(process)) - exact) for n in evaluations]
    print(f"  {'unidiff default (ExponentialAdams, Tapered)':44s}" + "".join(f"{error:10.1e}" for error in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="samples")
    parser.add_argument("--repeats", type=int, default=5, help="runs that are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    evaluations = (5, 10, 20, 50)
    parts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("azula", lambda: (equal_ddim(options.count), errors(options.count, evaluations))[0]),
        ("diffusers", lambda: ddpm(options.count, evaluations)),
        ("diffrax", lambda: adaptive(options.count, (1e-3, 1e-5, 1e-8), options.repeats)),
    )
    for package, part in parts:
        try:
            part()
        except ModuleNotFoundError as problem:
            print(f"\n{package} is left out: {problem}")
    versions = []
    for package in ("torch", "azula", "diffusers", "diffrax", "jax", "torchdiffeq"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    print(f"\n{', '.join(versions)}; Python {platform.python_version()}, one thread, {date.today().isoformat()}")


if __name__ == "__main__":
    main()
