"""Time grids: the times at which a solver evaluates the denoiser, decreasing from 1 to 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require, require_whole
from unidiff.process.base import Process, require_one_snr
from unidiff.process.level import Level

__all__ = [
    "ArcLength",
    "Grid",
    "Karras",
    "LogSNR",
    "Native",
    "Power",
    "Quadratic",
    "Tapered",
    "Trailing",
    "Uniform",
    "default_grid",
    "times_between",
]


@dataclass(frozen=True)
class Grid(PlainArguments, ABC):
    """A rule that gives the times of a sampling run."""

    @abstractmethod
    def times(self, process: Process) -> Tensor:
        """The times, strictly decreasing from 1 to 0: (N + 1,), float64, for N steps.

        The last but 0 is t_min, or 1 where there is one step; of `Trailing` it is 1 / N, and `FixedGrid` may name one.
        """

    def check(self, process: Process) -> None:
        """Raise a ParameterError for a process on which this grid is not defined."""
        self.times(process)

    def with_steps(self, steps: int) -> Grid | None:
        """The same grid with another number of steps; None where the number is not a parameter of the grid."""
        return None


@dataclass(frozen=True)
class Native(Grid):
    """Every entry of the process's own table, then 0: DDPM's T times or NCSN's L levels."""

    def times(self, process: Process) -> Tensor:
        process.require_scales()
        table = process.native_times()
        if table is None:
            raise ParameterError("grid", f"Native needs a table of times; {process!r} has none. Use Uniform(steps).")
        return torch.cat([table.flip(0), table.new_zeros(1)])


@dataclass(frozen=True)
class _Steps(Grid):
    """N - 1 steps from 1 to t_min, equal in some variable, then 0.

    Args:
        steps: N, the number of intervals, at least 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        require_whole("steps", self.steps, 1, 1_000_000)

    def check(self, process: Process) -> None:
        # Whether a grid is defined does not depend on the number of its steps, but the time that takes does.
        self.with_steps(min(self.steps, 1000)).times(process)

    def with_steps(self, steps: int) -> Grid:
        return replace(self, steps=steps)

    @abstractmethod
    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        """The times at these fractions, 0 to 1, of the way from 1 to t_min in the grid's variable."""

    def times(self, process: Process) -> Tensor:
        return times_between(self, process, self.steps, self.noisy)


def times_between(grid: Grid, process: Process, steps: int, noisy: Callable[[Process, Tensor], Tensor]) -> Tensor:
    """The times of a grid whose noisy ones, from 1 to t_min, are this function of equally spaced fractions."""
    process.require_scales()
    try:
        times = noisy(process, torch.linspace(0, 1, steps, dtype=torch.float64))
        times[0] = 1.0
        if steps > 1:
            times[-1] = process.t_min  # exactly, without the rounding of the variable
        times = torch.cat([times, times.new_zeros(1)])
        different = bool((times.diff() < 0).all())
    except ArithmeticError:  # a number beyond those of float64
        different = False
    if not different:
        problem = f"the {steps} times of {grid!r} on {process!r} are not different in float64"
        raise ParameterError("grid", f"{problem}. Take fewer steps, or less extreme numbers.")
    return times


@dataclass(frozen=True)
class Uniform(_Steps):
    """Equal steps from 1 to the process's t_min, then 0.

    On DDPM with `steps` = T this is the native grid. The times need not be entries of a table.
    """

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        return 1 + fraction * (process.t_min - 1)


@dataclass(frozen=True)
class Trailing(_Steps):
    """The times 1, (N - 1) / N, ..., 1 / N, then 0: the grids of models that were distilled to N steps.

    Salimans & Ho 2022, algorithm 2; the "trailing" steps of Lin et al. 2023, table 2. The grid of N steps is every
    second time of that of 2 N, and its last denoise is a step as long as the others. N is at most 1 / t_min.
    """

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        steps = len(fraction)
        if steps * process.t_min > 1 + 1e-9:
            problem = f"the last noisy time of Trailing, 1/{steps}, is below t_min = {process.t_min:g} of {process!r}"
            raise ParameterError("grid", f"{problem}. Take at most {math.floor(1 / process.t_min + 1e-9)} steps.")
        return torch.arange(steps, 0, -1, dtype=torch.float64) / steps

    @property
    def last(self) -> float:
        """The last noisy time, 1 / N."""
        return 1 / self.steps

    def times(self, process: Process) -> Tensor:
        """See `Grid.times`."""
        process.require_scales()
        times = self.noisy(process, torch.empty(self.steps))
        return torch.cat([times, times.new_zeros(1)])


@dataclass(frozen=True)
class Power(_Steps):
    """Steps equal in t^(1 / rho): they shrink towards the data as rho grows.

    Args:
        rho: The power, above 0; 1 is Uniform.
    """

    rho: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.rho < math.inf, "rho", self.rho, "a number > 0")

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        return (1 + fraction * (process.t_min ** (1 / self.rho) - 1)) ** self.rho


@dataclass(frozen=True)
class Quadratic(_Steps):
    """Steps equal in the square root of t: the quadratic spacing of Song, Meng & Ermon 2021, appendix D.2."""

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        return (1 + fraction * (process.t_min**0.5 - 1)) ** 2


@dataclass(frozen=True)
class LogSNR(_Steps):
    """Steps equal in log SNR (Lu et al. 2022a, section 3.4)."""

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        high, low = (math.log(q) for q in _noisiest_and_least(process, self))
        return process.time_at(-2 * (high + fraction * (low - high)))


@dataclass(frozen=True)
class Karras(_Steps):
    """Steps equal in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5).

    Args:
        rho: The power, above 0; the paper's value is 7. For rho to infinity it becomes LogSNR.
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.rho < math.inf, "rho", self.rho, "a number > 0")

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        high, low = (q ** (1 / self.rho) for q in _noisiest_and_least(process, self))
        return process.time_at(-2 * self.rho * torch.log(high + fraction * (low - high)))


@dataclass(frozen=True)
class Tapered(_Steps):
    """Steps equal in log((q + low) / (q + high)), q = sigma / alpha: the library's default.

    Between low and high they are equal in log SNR. Steps are longer far above `high`, where x0 is close to the mean of
    the data, and far below `low`, where it no longer changes; the length from alpha = 0 (q infinite) is finite.

    Args:
        low: Noise scale, in units of the data, below which steps grow longer; at least 0.
        high: Noise scale above which steps grow longer; above low.
    """

    low: float = 0.02
    high: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.low < math.inf, "low", self.low, "a number >= 0")
        require(self.low < self.high < math.inf, "high", self.high, f"a number > low ({self.low})")

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        first, last = _ends(process, self)
        # With p = 1 / q, finite at alpha = 0: (q + low) / (q + high) = (1 + low p) / (1 + high p).
        start, end = (
            math.log1p(self.low * p) - math.log1p(self.high * p)
            for p in (first.alpha / first.sigma, last.alpha / last.sigma)
        )
        ratio = torch.exp(start + fraction * (end - start))
        p = (1 - ratio) / (self.high * ratio - self.low)
        return process.time_at(2 * torch.log(p))


@dataclass(frozen=True)
class ArcLength(_Steps):
    """Steps equal in the arc length of the path of the modes' noise angles: for processes whose modes differ in SNR.

    ds^2 = sum_k w_k d theta_k^2 with tan theta_k = sigma_k / (alpha_k sqrt(S_k)), S_k the mean square of mode k of the
    data (`Process.power`), and w_k its share of the data's gradient energy, lambda_k S_k / sum_j lambda_j S_j. Each
    mode turns from data to noise in a short interval of time, and steps are concentrated where this happens to modes
    with much gradient energy. For a process with one SNR it is uniform in the angle.
    """

    def noisy(self, process: Process, fraction: Tensor) -> Tensor:
        times, lengths = _arc(process)
        targets = fraction * lengths[-1]
        right = torch.searchsorted(lengths, targets).clamp(1, len(lengths) - 1)
        rise = lengths[right] - lengths[right - 1]
        offset = (targets - lengths[right - 1]) / torch.where(rise == 0, 1.0, rise)
        return times[right - 1] + offset * (times[right] - times[right - 1])


@lru_cache(maxsize=64)
def _arc(process: Process) -> tuple[Tensor, Tensor]:
    """Times from 1 to t_min, and the arc length up to each of them."""
    times = 1 + torch.linspace(0, 1, 2001, dtype=torch.float64) * (process.t_min - 1)
    power = torch.as_tensor(process.power(), dtype=torch.float64)
    weight = torch.as_tensor(process.mode_weights(), dtype=torch.float64)

    def angles() -> Iterator[Tensor]:
        for level in (level for block in times.split(50) for level in process.levels_at(block)):  # bounds the memory
            alpha, sigma = (torch.as_tensor(scale, dtype=torch.float64) for scale in (level.alpha, level.sigma))
            yield torch.atan2(sigma, alpha * power.sqrt())

    lengths = [float(((b - a).square() * weight).sum().sqrt()) for a, b in pairwise(angles())]
    return times, torch.tensor([0.0, *lengths], dtype=torch.float64).cumsum(0)


def default_grid(process: Process, steps: int = 50) -> Grid:
    """The default grid: Tapered, or ArcLength where the modes differ in SNR."""
    return ArcLength(steps) if process.basis.shape else Tapered(steps)


def _ends(process: Process, grid: Grid) -> tuple[Level, Level]:
    """The levels at t = 1 and at t_min of a process with one SNR."""
    remedy = "Use ArcLength(steps), Uniform(steps) or Power(steps, rho)."
    require_one_snr(process, "grid", f"{type(grid).__name__} needs one SNR for all modes", remedy)
    return process.level(1.0), process.level(process.t_min)


def _noisiest_and_least(process: Process, grid: Grid) -> tuple[float, float]:
    """Sigma / alpha at t = 1 and at t_min."""
    first, last = _ends(process, grid)
    if first.alpha == 0:
        problem = f"{type(grid).__name__} needs alpha > 0 at t = 1; {process!r} has alpha = 0 there."
        raise ParameterError("grid", f"{problem} Use Tapered(steps), Uniform(steps) or Power(steps, rho).")
    return float(first.sigma / first.alpha), float(last.sigma / last.alpha)
