"""The exact flow: the probability flow of any denoiser, its steps halved until the ends have converged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.batching import Progress, batches
from unidiff.denoiser import Denoiser
from unidiff.grid import ArcLength
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.noise import Seeded
from unidiff.precision import precise
from unidiff.process.level import Level, axpby
from unidiff.solver.exponential_adams import ExponentialAdams
from unidiff.solver.request import check_request

__all__ = ["Flow", "reference_flow"]

_FEWEST = 32  # steps of the first integration
_CLEAN = 1e-5  # sigma / alpha at which the flow of a closed-form denoiser ends
_K = 1e-3  # alpha / sigma below which the steps are equal in it instead of its logarithm


@dataclass(frozen=True)
class Flow:
    """The ends of the probability flow.

    Attributes:
        x: The ends in pixels, (B, *shape) float64.
        error: Root mean square change of x, over samples and dimensions, when the steps were last halved. Runge and
            Kutta's method of order 4 leaves a fifteenth of it as error.
        steps: Steps of the last integration.
    """

    x: Tensor
    error: float
    steps: int


@plain_arguments
@enough_memory(LOWER_BATCH)
@torch.no_grad()
def reference_flow(
    denoiser: Denoiser,
    shape: Sequence[int],
    seeds: int | Sequence[int],
    *,
    tolerance: float = 1e-6,
    most_steps: int = 2048,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch: int = 1024,
    progress: Progress | None = None,
    **cond: Tensor,
) -> Flow:
    """Follow the probability flow from noise to data, from the same starts as `unidiff.sample` with the same seeds.

    With r = sqrt(alpha^2 + sigma^2), w = u / r and the angle a = atan2(sigma, alpha), states of any scalar process
    follow dw/da = cos(a) eps - sin(a) x0, which is finite everywhere, alpha = 0 included (Salimans & Ho 2022, appendix
    D). It is integrated by the classical method of Runge and Kutta, in steps that are equal in log(sigma / alpha)
    except near alpha = 0; the steps are halved until the ends change by less than the tolerance.

    A closed-form denoiser is followed to sigma / alpha = 1e-5, any other to the process's t_min; one denoise ends the
    flow, as in every sampling run. Where modes differ in SNR there is no common angle: ExponentialAdams on ArcLength is
    used, its steps halved in the same way, down to t_min.

    Args:
        denoiser: The model.
        shape: Shape of one sample.
        seeds: One seed per sample; a number n stands for 0, ..., n - 1.
        tolerance: Root mean square change by the last halving at which to stop.
        most_steps: Largest number of steps.
        dtype: Floating type of the starts and of the denoiser's input; sums are kept in float64.
        device: Device of the denoiser.
        batch: Samples followed together; bounds the memory.
        progress: Called with (steps done, steps in all if `most_steps` are needed), over all integrations.
        **cond: Conditions, each (B, ...), passed to the denoiser.

    Raises:
        ParameterError: If the seeds or the conditions are invalid.
    """
    shape, seeds, cond = check_request(denoiser, shape, seeds, cond, device, dtype, batch)
    process, before = denoiser.process, None
    starts = [
        (process.start(Seeded(part.seeds), torch.empty(len(part.seeds), *shape, dtype=dtype)), part.cond)
        for part in batches(seeds, batch, cond)
    ]
    total = 2 * max(most_steps, _FEWEST)
    report = progress or (lambda done, total: None)
    for doublings in count():
        steps = _FEWEST * 2**doublings
        report(min(steps - _FEWEST, total), total)
        if process.basis.shape:
            x = torch.cat([_solve(denoiser, start, steps, device, part) for start, part in starts])
        else:
            levels = _levels(denoiser, steps)
            x = torch.cat([_integrate(denoiser, start, levels, device, part) for start, part in starts])
        error = math.inf if before is None else float((x - before).square().mean().sqrt())
        if error <= tolerance or 2 * steps > most_steps:
            report(total, total)
            return Flow(x, error, steps)
        before = x
    raise AssertionError


def _solve(
    denoiser: Denoiser, start: Tensor, steps: int, device: torch.device | str, cond: Mapping[str, Tensor]
) -> Tensor:
    """The end in pixels, (B, *shape) float64, of the default solver's run on a process whose modes differ."""
    times = ArcLength(steps).times(denoiser.process)
    *_, last = ExponentialAdams().trajectory(denoiser, start.to(device), times, torch.zeros_like, **cond)
    return denoiser.process.basis.inverse(last.u).to("cpu", torch.float64)


def _progress(level: Level) -> float:
    """The variable that steps are equal in: p = log(sigma / (alpha + k sigma)), finite at alpha = 0."""
    sigma, alpha = float(level.sigma), float(level.alpha)
    return math.log(sigma / (alpha + _K * sigma))


def _levels(denoiser: Denoiser, steps: int) -> list[Level]:
    """The levels of `steps` equal steps, with one in the middle of each: 2 steps + 1."""
    process = denoiser.process
    first, last = process.levels_at([1.0, process.t_min])
    end = math.log(_CLEAN) if denoiser.closed_form else _progress(last)
    ratios = torch.linspace(_progress(first), end, 2 * steps + 1, dtype=torch.float64).exp()
    angles = torch.atan2(ratios, 1 - _K * ratios)
    log_snr = -2 * angles.tan().log()
    if denoiser.closed_form:  # depends on alpha and sigma alone, also below the process's t_min
        return [Level(math.nan, math.cos(a), math.sin(a), snr) for a, snr in zip(angles.tolist(), log_snr.tolist())]
    times = process.time_at(log_snr)
    times[0], times[-1] = 1.0, process.t_min
    return process.levels_at(times)


def _integrate(
    denoiser: Denoiser, start: Tensor, levels: list[Level], device: torch.device | str, cond: Mapping[str, Tensor]
) -> Tensor:
    """The end in pixels, (B, *shape) float64, of the flow from the start at the first level."""

    def predict(w: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        u = (math.hypot(level.alpha, level.sigma) * w).to(device, start.dtype)
        x0, eps, *_ = denoiser(u, level, **cond)
        return x0.to(w.dtype), eps.to(w.dtype)

    def slope(w: Tensor, level: Level) -> Tensor:  # dw / dp, with da / dp = sin(a) (cos(a) + k sin(a))
        r = math.hypot(level.alpha, level.sigma)
        cos, sin = level.alpha / r, level.sigma / r
        x0, eps = predict(w, level)
        return sin * (cos + _K * sin) * axpby(cos, eps, -sin, x0)

    first = denoiser.process.level(1.0)
    w = start.to(device, precise(device)) / math.hypot(first.alpha, first.sigma)
    for left, middle, right in zip(levels[:-1:2], levels[1::2], levels[2::2]):
        h = _progress(right) - _progress(left)
        k1 = slope(w, left)
        k2 = slope(w + h / 2 * k1, middle)
        k3 = slope(w + h / 2 * k2, middle)
        k4 = slope(w + h * k3, right)
        w = w + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return denoiser.process.basis.inverse(predict(w, levels[-1])[0]).to("cpu", torch.float64)
