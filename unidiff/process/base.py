"""What every process is: u_t = alpha(t) u_0 + sigma(t) eps, elementwise in an orthonormal basis."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.basis import Basis, Pixel
from unidiff.errors import ParameterError, require
from unidiff.noise import Noise
from unidiff.precision import precise
from unidiff.process.level import Level, Levels, Scale, axpby, scale_by

__all__ = ["Process", "derivative", "require_one_snr"]

_PIXEL = Pixel()
_LEAST = 1e-30  # of a scale; float32 ends at 1e-38


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """A function of time and its derivative, at times t; also inside a transform of torch.func.

    J 1 as the derivative of w -> J^T w, which is linear: torch's forward differentiation gives the same numbers and
    costs a millisecond for each operation that mixes t with a constant.
    """
    with torch.inference_mode(False), torch.enable_grad():
        shift = torch.zeros_like(t, requires_grad=True)  # a transform forbids `requires_grad_`
        value = function(t + shift) + 0 * shift  # so that a constant has a slope
        weight = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, shift, weight, create_graph=True)
        (slope,) = torch.autograd.grad(pulled, weight, torch.ones_like(t))
    return value.detach(), slope.detach()


def _falling_root(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Where a falling function is 0, elementwise on [0, 1], to the rounding of float64; the nearer end if nowhere.

    Chandrupatla (1997): inverse quadratic interpolation where it can be trusted, bisection elsewhere.
    """
    a, b = torch.ones_like(like), torch.zeros_like(like)  # the newest point, and the other end of the bracket
    f_a, f_b = function(a), function(b)
    found = torch.where(f_a < 0, b, a)  # the nearer end
    open_ = (f_a < 0) & (f_b > 0)
    step = torch.full_like(like, 0.5)
    for _ in range(200):  # far more than it takes
        x = a + step * (b - a)
        f = function(x)
        same = (f > 0) == (f_a > 0)
        c, f_c = torch.where(same, a, b), torch.where(same, f_a, f_b)
        b, f_b = torch.where(same, b, a), torch.where(same, f_b, f_a)
        a, f_a = x, f
        least = (2.0**-60 + 2.0**-53 * a) / (b - a).abs()
        found = torch.where(open_, torch.where(f_a.abs() <= f_b.abs(), a, b), found)
        open_ = open_ & (least < 0.5) & (f_a != 0)  # an element's answer depends on no other element
        if not bool(open_.any()):
            break
        xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
        to_b, to_c = f_a / (f_b - f_a) * f_c / (f_b - f_c), f_a / (f_c - f_a) * f_b / (f_c - f_b)
        trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        step = torch.where(trusted, to_b + (c - a) / (b - a) * to_c, 0.5).clamp(min=least).clamp(max=1 - least)
    return found


def _time(t: object) -> float:
    """A time as a number; a ParameterError unless it is one, from 0 to 1."""
    try:
        number = float(t)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    require(0 <= number <= 1, "t", t, "a time from 0 (data) to 1 (noise)")
    return number


def require_one_snr(process: Process, parameter: str, reason: str, remedy: str) -> None:
    """Raise a ParameterError about this parameter if the modes of a process differ in SNR."""
    if process.basis.shape:
        raise ParameterError(parameter, f"{reason}; {process!r} has {math.prod(process.basis.shape)}. {remedy}")


@dataclass(frozen=True)
class Process(PlainArguments, ABC):
    """A Gaussian process from data to noise, diagonal in an orthonormal basis.

    Time t runs from 0 (clean) to 1 (most noise). It is progress, not physical time. A new process is `log_alpha` and
    `log_sigma`; everything else is derived here. The coefficients are computed on the CPU in float64 and cast once. A
    process whose alpha is 0 at t = 1 defines `alpha` as well, since the derivative of exp(-inf) is NaN. One whose
    modes differ names its `basis`; its functions of time answer (*t, *basis.shape) to times (*t, 1, ..., 1).
    """

    @property
    def basis(self) -> Basis:
        """The orthonormal basis in which the process is diagonal."""
        return _PIXEL

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """Log alpha(t), the log scale of the data, at times t of any shape, float64."""

    @abstractmethod
    def log_sigma(self, t: Tensor) -> Tensor:
        """Log sigma(t), the log scale of the noise, at times t of any shape, float64."""

    def fit(self, batches: Iterable[Tensor]) -> Process:
        """The process for these data: itself, without reading a batch, if it does not depend on them.

        Args:
            batches: All of the training data once, in batches (B, *shape) of pixels.
        """
        return self

    def mode_weights(self) -> Tensor | float:
        """The weight of each mode where times are chosen (`ArcLength`), (*basis.shape); 1 if there is one SNR."""
        return 1.0

    @property
    def measures(self) -> bool:
        """Whether `fit` measures something of the data, which is then kept beside a model's weights."""
        return False

    def measured(self) -> dict[str, Tensor]:
        """What `fit` measured, by name."""
        return {}

    def with_measured(self, tensors: Mapping[str, Tensor]) -> Process:
        """The process with these measurements, as `measured` returns them."""
        return self

    def power(self) -> Tensor | float:
        """Mean square of each mode of the data, (*basis.shape); 1 if the process does not know it."""
        return 1.0

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The smallest time at which a network is evaluated; below it a sampling run denoises once."""

    def native_times(self) -> Tensor | None:
        """The process's own table of times, increasing, (L,) float64; None if its time is continuous."""
        return None

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at t."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise at t."""
        return self.log_sigma(t).exp()

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio, log(alpha^2 / sigma^2), at t."""
        return 2 * (self.log_alpha(t) - self.log_sigma(t))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Drift and diffusion of the forward SDE du = f u dt + g dW: (f, g^2) at times t, by differentiation.

        f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2 (Kingma et al. 2021, section 2; Song et al. 2021,
        eq. 29-30 are the cases VE and VP). Infinite where alpha = 0.
        """
        _, f = derivative(self.log_alpha, t)
        log_sigma, slope = derivative(self.log_sigma, t)
        return f, 2 * (slope - f) * torch.exp(2 * log_sigma)

    def require_scales(self) -> None:
        """Raise a ParameterError if float32 cannot hold what is computed with the scales of data and noise.

        The modes of a process that differ are not looked at: their data may fade to nothing.
        """
        if self.basis.shape:
            return
        (alpha, _), (least, most) = self._scales(torch.tensor([self.t_min, 1.0], dtype=torch.float64)).tolist()
        if not (_LEAST <= alpha <= 1 / _LEAST and _LEAST <= least < most <= 1 / _LEAST and self.t_min < 1):
            problem = (
                f"its scales of data and noise, {alpha:.3g} and {least:.3g} at t_min, and {most:.3g} of noise at 1"
            )
            needed = f"must be from {_LEAST:g} to {1 / _LEAST:g}, and the noise must grow"
            raise ParameterError("process", f"{problem}, {needed}: {self!r}. Take less extreme numbers.")

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The times in [0, 1] of these log SNRs, of any shape; the nearer end where there is none.

        Raises:
            ParameterError: If the modes differ in log SNR.
        """
        require_one_snr(self, "process", "a time for a log SNR needs one SNR for all modes", "Pass times to `level`.")
        log_snr = log_snr.to("cpu", torch.float64)
        return _falling_root(lambda t: self.log_snr(t) - log_snr, log_snr)

    def level(self, t: float | Tensor, like: Tensor | None = None) -> Level:
        """The coefficients at one time, or at one time per sample.

        Args:
            t: A number in [0, 1], or times (B,) for the samples of `like`.
            like: The state (B, *shape) whose shape, dtype and device the coefficients are to match; needed for a batch
                of times, and for one time where modes differ and the state is not on the CPU.

        Returns:
            Numbers for a number, tensors (B, 1, ..., 1) for a batch.
        """
        if not isinstance(t, Tensor) or t.ndim == 0:
            return self.levels_at([_time(t)], "cpu" if like is None else like.device)[0]
        if like is None or t.shape != like.shape[:1]:
            raise ValueError(f"t must be one time, or one for each sample of `like`, got shape {tuple(t.shape)}")

        def fitted(value: Tensor) -> Tensor:
            modes = value.shape[1:]
            value = value.to(like.device, like.dtype, non_blocking=True)
            return value.reshape(len(value), *[1] * (like.ndim - 1 - len(modes)), *modes)

        times = t.detach().to("cpu", torch.float64)
        rates = cache(lambda: tuple(map(fitted, self._rates(times))))
        time, alpha, sigma, log_snr = map(fitted, self._coefficients(times))
        return Level(time, alpha, sigma, log_snr, rates)

    def levels_at(self, times: Tensor | Sequence[float], device: torch.device | str = "cpu") -> list[Level]:
        """The coefficients at each of `times` (N,): computed together, for a sampling run.

        Args:
            times: The times.
            device: Where tensors are to be, if the modes differ; they are float64 where the device has it.

        Returns:
            Levels of numbers; with tensors (*basis.shape) in a basis that has a shape.
        """
        t = torch.as_tensor(times, dtype=torch.float64, device="cpu")

        def columns(values: tuple[Tensor, ...]) -> Iterable[Sequence[Scale]]:
            return (v.tolist() if v.ndim == 1 else v.to(device, precise(device)).unbind() for v in values)

        rates = cache(lambda: [*zip(*columns(self._rates(t)))])
        if self.basis.shape:
            own = (partial(lambda i: rates()[i], i) for i in range(len(t)))
            return [*map(Level, *columns(self._coefficients(t)), own)]
        coefficients = (*map(tuple, columns(self._coefficients(t))),)
        return Levels(self, coefficients, rates).levels[:]

    def _scales(self, at: Tensor) -> Tensor:
        """Alpha and sigma at times (N, 1, ..., 1), stacked: (2, N, *basis.shape)."""
        return torch.stack(torch.broadcast_tensors(self.alpha(at), self.sigma(at)))

    def _coefficients(self, t: Tensor) -> tuple[Tensor, ...]:
        """The fields of a Level at times t, (N,): each (N,) or (N, *basis.shape)."""
        # Not in inference mode, since what a process caches here is differentiated later.
        with torch.inference_mode(False), torch.no_grad():
            at = t.clone().reshape(-1, *[1] * len(self.basis.shape))
            return t, *self._scales(at), self.log_snr(at)

    def _rates(self, t: Tensor) -> tuple[Tensor, ...]:
        """The derivatives of alpha and sigma at times t, (N,): each (N,) or (N, *basis.shape)."""
        return derivative(self._scales, t.reshape(-1, *[1] * len(self.basis.shape)))[1].unbind()

    def perturb(self, u0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The noisy state alpha u0 + sigma eps, (B, *modes), of data u0 and noise eps, (B, *modes)."""
        return axpby(level.alpha, u0, level.sigma, eps)

    def prior_scale(self) -> Scale:
        """Standard deviation of the noise that sampling starts from: a number, or (*basis.shape)."""
        one = torch.ones([1] * len(self.basis.shape), dtype=torch.float64)
        return self.sigma(one) if self.basis.shape else float(self.sigma(one))

    def start(self, noise: Noise, like: Tensor) -> Tensor:
        """States at t = 1 from which sampling starts, shaped like (B, *modes).

        Args:
            noise: Source of standard normal noise.
            like: A tensor of their shape, dtype and device.
        """
        scale, z = self.prior_scale(), noise(like)
        return scale_by(scale.to(z) if isinstance(scale, Tensor) else scale, z)

    def draw_prior(self, noise: Noise, like: Tensor) -> Tensor:
        """Deprecated: `start`."""
        warnings.warn("Process.draw_prior is deprecated; use Process.start", DeprecationWarning, stacklevel=2)
        return self.start(noise, like)

    def prior(self, noise: Tensor) -> Tensor:
        """Deprecated: `start`, or `prior_scale` times the noise."""
        warnings.warn("Process.prior is deprecated; use Process.start", DeprecationWarning, stacklevel=2)
        return Process.start(self, lambda _: noise, noise)

    def prior_log_density(self, u: Tensor) -> Tensor:
        """Log density of the prior at u, (B, *modes), in nats: (B,)."""
        scale = torch.as_tensor(self.prior_scale(), dtype=torch.float64).to(u).expand(u.shape)
        return (-0.5 * (u / scale).square() - (scale * math.sqrt(2 * math.pi)).log()).flatten(1).sum(1)

    def training_times(self, uniform: Tensor) -> Tensor:
        """Deprecated: training times are drawn by `Objective.times`, by default `UniformTimes`."""
        import unidiff

        remedy = "use UniformTimes().draw(process, uniform), or LogNormal for EDM"
        warnings.warn(f"Process.training_times is deprecated; {remedy}.", DeprecationWarning, stacklevel=2)
        return unidiff.UniformTimes().draw(self, uniform)
