"""A time of a process with its coefficients, and the arithmetic of coefficients that are numbers or tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache, partial
from itertools import count, repeat
from operator import is_
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

__all__ = [
    "Level",
    "Scale",
    "axpby",
    "eps_of",
    "expm1",
    "fresh_noise_fraction",
    "is_one",
    "is_own",
    "noised",
    "once_for_grid",
    "posterior_kl",
    "scale_by",
    "sum_of_two",
]

# A coefficient at one time: a number when sampling, (B, 1, ..., 1) when training; (*basis.shape) and (B, 1, ...,
# *basis.shape) where it differs from mode to mode.
Scale = float | Tensor
_ZERO = torch.zeros(())  # on the CPU: without dimensions it is a number on any device, and in any format
Made = TypeVar("Made")
_LASTING = 4096  # levels of a grid for which something is kept between runs
_PACKAGE = __name__.partition(".")[0]
_NO_RATES = partial(tuple, (math.nan, math.nan))


@lru_cache(maxsize=8)
def _lasting(process: Hashable, coefficients: tuple[tuple[Scale, ...], ...]) -> WeakKeyDictionary[Any, Any]:
    return WeakKeyDictionary()


class Levels:
    """The levels of a grid, and what was made for all of them together.

    Attributes:
        levels: The levels.
        rates: The derivatives of alpha and sigma at each of them.
        made: What was made in one run, under keys of whoever made it.
        lasting: What was made for any run at the same levels, under a weak reference to whoever made it.
    """

    __slots__ = ("lasting", "levels", "made", "rates")

    def __init__(
        self,
        process: Hashable,
        coefficients: tuple[tuple[Scale, ...], ...],
        rates: Callable[[], list[tuple[Scale, ...]]],
    ) -> None:
        self.rates = rates
        try:
            # Found by the process and the numbers, so that a process that changes has another.
            self.lasting = _lasting(process, coefficients) if len(coefficients[0]) <= _LASTING else WeakKeyDictionary()
        except TypeError:  # a process that has no hash
            self.lasting = WeakKeyDictionary()
        self.made: dict[Any, Any] = {}
        places = zip(repeat(self), count())
        self.levels: list[Level] = [*map(Level, *coefficients, repeat(_NO_RATES), places)]


@dataclass(frozen=True, slots=True, init=False)
class Level:
    """A time of a process together with its coefficients: what solvers and denoisers pass to each other.

    Made once for a whole grid (`Process.levels_at`) or a whole batch (`Process.level`), in float64, so that a sampling
    step costs no more than a hand-written loop. Numbers when sampling; tensors (B, 1, ..., 1) when training. In a basis
    with a shape all but `time` are tensors that broadcast against its modes. The rates are differentiated when they are
    first read, for the whole grid or batch; a level made by hand has none (NaN).

    Attributes:
        time: The time, in [0, 1].
        alpha: Scale of the data.
        sigma: Scale of the noise.
        log_snr: log(alpha^2 / sigma^2).
        place: The levels of numbers that this one was made with, and its number among them; None if it was made alone.
    """

    time: Scale
    alpha: Scale
    sigma: Scale
    log_snr: Scale
    _rates: Callable[[], tuple[Scale, ...]] = field(default=_NO_RATES, repr=False, compare=False)
    place: tuple[Levels, int] | None = field(default=None, repr=False, compare=False)

    def __init__(
        self,
        time: Scale,
        alpha: Scale,
        sigma: Scale,
        log_snr: Scale,
        _rates: Callable[[], tuple[Scale, ...]] = _NO_RATES,
        place: tuple[Levels, int] | None = None,
    ) -> None:
        # A grid has many levels, and what a frozen dataclass does to set a field costs twice as much.
        _set_time(self, time)
        _set_alpha(self, alpha)
        _set_sigma(self, sigma)
        _set_log_snr(self, log_snr)
        _set_rates(self, _rates)
        _set_place(self, place)

    @property
    def alpha_rate(self) -> Scale:
        """The rate d alpha / dt."""
        return (self._rates() if self.place is None else self.place[0].rates()[self.place[1]])[0]

    @property
    def sigma_rate(self) -> Scale:
        """The rate d sigma / dt."""
        return (self._rates() if self.place is None else self.place[0].rates()[self.place[1]])[1]

    def _both_rates(self) -> tuple[Scale, ...]:
        return self._rates() if self.place is None else self.place[0].rates()[self.place[1]]

    def map(self, function: Callable[[Tensor], Tensor]) -> Level:
        """The level with a function applied to each tensor, such as one that picks rows of a batch."""

        def mapped(value: Scale) -> Scale:
            return function(value) if isinstance(value, Tensor) else value

        time, alpha, sigma, log_snr = map(mapped, (self.time, self.alpha, self.sigma, self.log_snr))
        return Level(time, alpha, sigma, log_snr, cache(lambda: tuple(map(mapped, self._both_rates()))))

    def __reduce__(self) -> tuple[Any, ...]:
        # A closure cannot be pickled, nor can a tensor that was made inside a torch.func transform; its clone can.
        plain = self.map(torch.clone)
        rates = partial(tuple, plain._both_rates())
        return partial(Level, plain.time, plain.alpha, plain.sigma, plain.log_snr, _rates=rates), ()


_set_time, _set_alpha, _set_sigma, _set_log_snr, _set_rates, _set_place = (
    vars(Level)[own.name].__set__ for own in fields(Level)
)


def is_own(*parts: object) -> bool:
    """Whether all are exactly classes of this package, which are what their fields say: another's may change inside."""
    return all(type(part).__module__.partition(".")[0] == _PACKAGE for part in parts)


def once_for_grid(levels: Sequence[Level], owner: Any, make: Callable[[], Made]) -> Made:
    """What `make` makes of the levels of a run: once for all runs on a grid of numbers, while the owner lives.

    For an owner that is not of this package it is made anew for each run.
    """
    grid = levels[0].place[0] if levels[0].place is not None else None
    if grid is None or len(grid.levels) != len(levels) or not all(map(is_, grid.levels, levels)) or not is_own(owner):
        return make()
    try:
        found: Made | None = grid.lasting.get(owner)
        if found is None:
            found = grid.lasting[owner] = make()
    except TypeError:  # an owner that has no hash
        return make()
    return found


def axpby(a: Scale, x: Tensor, b: Scale, y: Tensor) -> Tensor:
    """The linear combination a x + b y, in as few passes as the coefficients allow.

    A number that is exactly 0 drops its term, so that Eps hands its output on untouched.
    """
    if isinstance(a, float) and isinstance(b, float):  # which is quicker to ask
        return sum_of_two(a, x, b, y)
    if isinstance(a, Tensor):
        return a * x + b * y if isinstance(b, Tensor) else sum_of_two(1.0, a * x, b, y)
    return sum_of_two(1.0, b * y, a, x) if isinstance(b, Tensor) else sum_of_two(a, x, b, y)


def sum_of_two(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """As `axpby`, of numbers."""
    if a == 0:
        return y if b == 1 else _times(b, y)
    if b == 0:
        return x if a == 1 else _times(a, x)
    if a == 1:
        return torch.add(x, y, alpha=b)
    return torch.add(y, x, alpha=a) if b == 1 else torch.add(torch.add(_ZERO, x, alpha=a), y, alpha=b)


def _times(a: float, x: Tensor) -> Tensor:
    """The multiple a x as a sum 0 + a x, which takes the number as it is: a product makes a tensor of it first."""
    return torch.add(_ZERO, x, alpha=a)


def eps_of(x0: Tensor, u: Tensor, level: Level) -> Tensor:
    """The noise that explains a state u with data x0: (u - alpha x0) / sigma, each (B, *modes)."""
    return (u - level.alpha * x0) / level.sigma


def scale_by(a: Scale, x: Tensor) -> Tensor:
    """The multiple a x; x itself where the number a is 1, to the rounding of float64.

    Factors that are 1 by mathematics, such as those around the network of a DDPM, cost nothing.
    """
    if isinstance(a, Tensor):
        return a * x
    return x if is_one(a) else _times(a, x)


def is_one(a: Scale) -> bool:
    """Whether a factor is a number that is 1 to the rounding of float64."""
    return not isinstance(a, Tensor) and abs(a - 1) < 1e-15


def expm1(x: Scale) -> Scale:
    """exp(x) - 1 of a number or a tensor, without loss near 0."""
    return torch.expm1(x) if isinstance(x, Tensor) else math.expm1(x)


def fresh_noise_fraction(t: Level, s: Level) -> Scale:
    """Fraction of the noise at s that a reverse step from t may draw anew: 1 - SNR(t) / SNR(s), in [0, 1] for s < t.

    For DDPM this is beta_t / (1 - alpha-bar_t) on neighbouring entries (Ho et al. 2020, eq. 7).
    """
    return -expm1(t.log_snr - s.log_snr)


def noised(u: Tensor, s: Level, t: Level, z: Tensor) -> Tensor:
    """The state at t > s from that at s by the process's own transition, with standard normal noise z, (B, *modes).

    u_t = r u_s + sqrt(sigma_t^2 - r^2 sigma_s^2) z with r = alpha_t / alpha_s = sigma_t / sigma_s sqrt(SNR_t / SNR_s),
    which is finite where alpha is 0.
    """
    renewed = fresh_noise_fraction(t, s)
    return axpby(t.sigma / s.sigma * (1 - renewed) ** 0.5, u, t.sigma * renewed**0.5, z)


def posterior_kl(error: Tensor, t: Level, s: Level, variance: Scale) -> tuple[Tensor, Scale]:
    """KL between q(u_s | u_t, u_0) and a reverse step from t to s, in nats, for each mode: a sum of two parts.

    The first variance is the small one, beta-tilde = sigma_s^2 renewed, the step's r times that; the means differ by
    alpha_s renewed times the error of x0 (Ho et al. 2020, eq. 5 and 7).

    Args:
        error: u_0 - x0, (B, *modes).
        t: The level that the step starts from.
        s: The level below.
        variance: Where the step's variance lies between beta-tilde (0) and beta (1) on a logarithmic scale.

    Returns:
        (SNR_s - SNR_t) error^2 / (2 r), (B, *modes), and (log r + 1 / r - 1) / 2, as the variance and coefficients are.
    """
    ratio = t.sigma / s.sigma
    log_r = 2 * variance * (ratio.log() if isinstance(ratio, Tensor) else math.log(ratio))
    weight = 0.5 * (s.alpha / s.sigma) ** 2 * fresh_noise_fraction(t, s) / ratio ** (2 * variance)
    return weight * error.square(), 0.5 * (log_r + expm1(-log_r))
