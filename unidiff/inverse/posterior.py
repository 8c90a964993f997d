"""A model of the data given a measurement of them, y = A x0 + noise: a denoiser that wraps a denoiser."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.guidance.base import replace_x0, slice_level
from unidiff.inverse.operators import Operator
from unidiff.parameterization import Prediction
from unidiff.process.level import Level, eps_of, scale_by

__all__ = ["DPS", "MomentMatching", "PiGDM", "Posterior"]

_LEAST = 1e-6  # alpha / sigma below which nothing of a float32 gradient is left
_FAINT = 1e-3  # alpha / sigma at which a state without data is asked instead: x0 hardly depends on it


class Posterior(Denoiser):
    """E[x0 | u, y] for y = A x0 + s n, n standard normal, approximated through the derivative of a denoiser.

    By Tweedie's formula for the second moment (Efron 2011), Cov[x0 | u] = diag(sigma^2 / alpha) (d E[x0 | u] / du)^T, a
    product with the covariance is one backward pass. The variants weigh the residual y - A E[x0 | u] with a matrix W:

        E[x0 | u, y] ~ E[x0 | u] + Cov[x0 | u] A^T W (y - A E[x0 | u]),

    which is the score grad log p(u) + grad_u log p(y | u) in terms of x0.
    """

    y: Tensor

    def __init__(self, denoiser: Denoiser, operator: Operator, y: Tensor, noise_std: float, chunk: int = 64) -> None:
        super().__init__()
        require(0 < noise_std < math.inf, "noise_std", noise_std, "a number above 0; known pixels: `unidiff.inpaint`")
        require_whole("chunk", chunk)
        require(
            y.ndim >= 2 and bool(y.isfinite().all()), "y", tuple(y.shape), "finite numbers (B, *measured) or (1, ...)"
        )
        if denoiser.shape is not None:
            measured = tuple(operator.apply(torch.zeros(1, *denoiser.shape)).shape[1:])
            allowed = f"(B, *{measured}), as {type(operator).__name__} makes of samples {tuple(denoiser.shape)}"
            require(tuple(y.shape[1:]) == measured, "y", tuple(y.shape), allowed)
        process = denoiser.process
        self.latest = 1.0
        if process.basis.shape:
            first = process.level(1.0)
            least = float(torch.as_tensor(first.alpha / first.sigma).min())
            if least < _LEAST:
                problem = f"{process!r} has alpha / sigma = {least:.2g} in a mode at t = 1, where the derivative of a"
                remedy = "Use a process that keeps some of the data, such as one with a `floor`."
                raise ParameterError("denoiser", f"{problem} denoiser does not tell the covariance of x0. {remedy}")
        else:
            self.latest = float(process.time_at(torch.tensor(2 * math.log(_FAINT), dtype=torch.float64)))
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self.operator = operator
        self.noise_std = noise_std
        self.chunk = chunk
        self.register_buffer("y", y.detach().clone())

    @abstractmethod
    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """What the measurement adds to E[x0 | u], (B, *modes).

        Args:
            residual: y - A E[x0 | u], (B, *measured).
            push: From a measurement w, (B, *measured), to Cov[x0 | u] A^T w in modes, (B, *modes).
            level: Time and coefficients of the state.
        """

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise given state and measurement; see `Denoiser.forward`.

        At most `chunk` samples are differentiated together: the memory grows with the chunk, not with the batch.
        """
        if len(self.y) not in (1, len(u)):
            raise ParameterError(
                "y", f"{len(self.y)} measurements were given for {len(u)} samples; give one each, or one."
            )
        y = self.y.to(u).expand(len(u), *self.y.shape[1:])
        parts = [
            self._given(
                u[rows],
                y[rows],
                slice_level(level, rows),
                {name: value[rows] for name, value in cond.items()},
            )
            for rows in (slice(start, start + self.chunk) for start in range(0, len(u), self.chunk))
        ]
        x0, eps, learned = zip(*parts)
        variance = torch.cat(learned) if self.learned_variance else None  # as if nothing had been measured
        return Prediction(torch.cat(x0), torch.cat(eps), level, variance)

    def _given(
        self, u: Tensor, y: Tensor, level: Level, cond: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.inference_mode(False), torch.enable_grad():
            given, asked = level, self._asked(u, level)
            state = scale_by(asked.sigma / given.sigma, u.detach()).clone().requires_grad_()
            prediction, level = self.denoiser(state, asked, **cond), asked
            measured = self.operator.apply(self.process.basis.inverse(prediction.x0))
            if not measured.requires_grad:
                raise ParameterError("denoiser", f"{type(self.denoiser).__name__} passes no gradients to its input.")

            def push(w: Tensor) -> Tensor:
                (pulled,) = torch.autograd.grad(measured, state, w, retain_graph=True)
                return level.sigma**2 / level.alpha * pulled

            shift = self.shift(y - measured.detach(), push, level).detach()
        x0 = prediction.x0.detach() + shift
        # At the level itself by the difference: u - alpha x0 would cancel.
        eps = replace_x0(prediction, x0).eps.detach() if asked is given else eps_of(x0, u, given)
        variance = prediction.variance_interpolation
        return x0.to(u.dtype), eps.to(u.dtype), None if variance is None else variance.detach().to(u.dtype)

    def _asked(self, u: Tensor, level: Level) -> Level:
        """The level itself, or the nearest that keeps a thousandth of data: pure noise has no derivative to go by."""
        if isinstance(level.time, Tensor):
            late = bool((level.time > self.latest).any())
            return self.process.level(level.time.flatten().clamp(max=self.latest), u) if late else level
        return self.process.level(self.latest) if level.time > self.latest else level


class DPS(Posterior):
    """Diffusion posterior sampling: p(y | u) is taken for N(A E[x0 | u], s^2 I), that is W = scale / s^2.

    Chung et al. 2023, eq. 11 and 16, with the 1 / (2 s^2) of the Gaussian's logarithm for their rho; A may be any
    differentiable map there. The spread of x0 around its mean is left out: the measurement counts too much while there
    is noise, and the samples are too narrow, by how much stands in docs/inverse.md. The shift is up to Cov[x0 | u] /
    s^2 times the residual: with s below the spread of the data a solver needs steps in proportion. The paper's
    algorithm 1 divides the shift by the norm of the residual and adds it after the step of one solver; no denoiser can
    say that.

    Args:
        denoiser: The model of the data.
        operator: A.
        y: Measurements, (B, *measured), or (1, *measured) for all samples.
        noise_std: s, standard deviation of the measurement's noise, above 0.
        scale: Multiplies the guidance, at least 0; 1 is the formula.
        chunk: Samples differentiated together, at least 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        noise_std: float,
        scale: float = 1.0,
        chunk: int = 64,
    ) -> None:
        super().__init__(denoiser, operator, y, noise_std, chunk)
        require(0 <= scale < math.inf, "scale", scale, "a number of at least 0")
        self.scale = scale

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (y - A x0) scale / s^2; see `Posterior.shift`."""
        return push(self.scale / self.noise_std**2 * residual)  # eq. (16)


class PiGDM(Posterior):
    """Pseudo-inverse guidance: p(x0 | u) is taken for N(E[x0 | u], r^2 I), so W = (r^2 A A^T + s^2 I)^{-1}.

    Song et al. 2023, eq. 7-8. r^2 = d^2 sigma^2 / (alpha^2 d^2 + sigma^2) is the posterior variance of a pixel of
    variance d^2 (the paper's, with d = 1: section 3.2). Exact for data N(m, d^2 I) and any A.

    Args:
        denoiser: The model of the data; one SNR for all modes.
        operator: A; its singular value decomposition makes W cheap.
        y: Measurements, (B, *measured), or (1, *measured) for all samples.
        noise_std: s, standard deviation of the measurement's noise, above 0.
        data_std: d, standard deviation of the data around their mean, above 0.
        chunk: Samples differentiated together, at least 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        noise_std: float,
        data_std: float = 1.0,
        chunk: int = 64,
    ) -> None:
        super().__init__(denoiser, operator, y, noise_std, chunk)
        require(0 < data_std < math.inf, "data_std", data_std, "a number above 0")
        if self.process.basis.shape:
            problem = f"PiGDM takes one variance for all modes; those of {self.process!r} differ. Use MomentMatching."
            raise ParameterError("denoiser", problem)
        self.data_std = data_std

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (r^2 A A^T + s^2 I)^{-1} (y - A x0); see `Posterior.shift`."""
        spread = self.data_std**2 * level.sigma**2 / (level.alpha**2 * self.data_std**2 + level.sigma**2)
        if not isinstance(spread, Tensor):
            return push(self._weighed(residual, spread))
        pairs = zip(residual, spread.flatten().tolist())
        return push(torch.stack([self._weighed(row, r2) for row, r2 in pairs]))

    def _weighed(self, residual: Tensor, spread: float) -> Tensor:
        return self.operator.gram(residual, lambda gram: 1 / (spread * gram + self.noise_std**2))


class MomentMatching(Posterior):
    """p(x0 | u) is taken for the Gaussian with its own mean and covariance: W = (A Cov[x0 | u] A^T + s^2 I)^{-1}.

    Exact for Gaussian data of any covariance, in any basis (Boys et al. 2024, eq. 9; Rozet et al. 2024, section 4,
    solve with it by conjugate gradients, as here). Each iteration is one backward pass. A network's Jacobian may be
    indefinite: a sample whose iteration meets a direction of no positive curvature stops there.

    Args:
        denoiser: The model of the data.
        operator: A.
        y: Measurements, (B, *measured), or (1, *measured) for all samples.
        noise_std: s, standard deviation of the measurement's noise, above 0.
        iterations: Conjugate gradient steps at most, at least 1.
        tolerance: A sample is done when its residual is this share of what it was, above 0.
        chunk: Samples differentiated together, at least 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        noise_std: float,
        iterations: int = 20,
        tolerance: float = 1e-5,
        chunk: int = 64,
    ) -> None:
        super().__init__(denoiser, operator, y, noise_std, chunk)
        require_whole("iterations", iterations)
        require(0 < tolerance < 1, "tolerance", tolerance, "a number above 0 and below 1")
        self.iterations = iterations
        self.tolerance = tolerance

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (A Cov A^T + s^2 I)^{-1} (y - A x0) by conjugate gradients; see `Posterior.shift`."""
        shape = residual.shape
        solution = torch.zeros_like(residual).flatten(1)
        left = residual.flatten(1)
        direction = left
        square = left.square().sum(1, keepdim=True)
        enough = self.tolerance**2 * square
        active = square > enough
        for _ in range(self.iterations):
            if residual.device.type == "cpu" and not active.any():  # elsewhere the host would wait for the answer
                break
            spread = self.operator.apply(self.process.basis.inverse(push(direction.reshape(shape)))).to(residual.dtype)
            image = spread.flatten(1) + self.noise_std**2 * direction
            curvature = (direction * image).sum(1, keepdim=True)
            active = active & (curvature > 0)
            length = torch.where(active, square / curvature, 0.0)  # 0 for those that are done: they stay as they are
            solution, left = solution + length * direction, left - length * image
            before, square = square, left.square().sum(1, keepdim=True)
            direction = left + torch.where(active, square / before, 0.0) * direction
            active = active & (square > enough)
        return push(solution.reshape(shape))
