"""Models of the data given a measurement y = A x0 + noise: denoisers that wrap a denoiser."""

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

_SMALLEST_RATIO = 1e-6  # alpha / sigma below which a float32 gradient underflows
_CLAMPED_RATIO = 1e-3  # noisier states are evaluated at this alpha / sigma instead: x0 hardly depends on it


class Posterior(Denoiser):
    """E[x0 | u, y] for y = A x0 + s n, n standard normal, approximated through the derivative of a denoiser.

    By Tweedie's formula for the second moment (Efron 2011), Cov[x0 | u] = diag(sigma^2 / alpha) (d E[x0 | u] / du)^T, a
    product with the covariance is one backward pass. The variants weight the residual y - A E[x0 | u] with a matrix W:

        E[x0 | u, y] ~ E[x0 | u] + Cov[x0 | u] A^T W (y - A E[x0 | u]),

    which is the score grad log p(u) + grad_u log p(y | u) in terms of x0.

    Args:
        denoiser: The model of the data.
        operator: A.
        y: Measurements, (B, *measured), or (1, *measured) for all samples.
        noise_std: s > 0, standard deviation of the measurement noise.
        chunk: Samples differentiated together, at least 1.
    """

    y: Tensor

    def __init__(self, denoiser: Denoiser, operator: Operator, y: Tensor, noise_std: float, chunk: int = 64) -> None:
        super().__init__()
        require(0 < noise_std < math.inf, "noise_std", noise_std, "a number > 0 (known pixels: `unidiff.inpaint`)")
        require_whole("chunk", chunk)
        finite = y.ndim >= 2 and bool(y.isfinite().all())
        require(finite, "y", tuple(y.shape), "finite numbers (B, *measured) or (1, ...)")
        if denoiser.shape is not None:
            measured = tuple(operator.apply(torch.zeros(1, *denoiser.shape)).shape[1:])
            allowed = f"(B, *{measured}), as {type(operator).__name__} measures samples {tuple(denoiser.shape)}"
            require(tuple(y.shape[1:]) == measured, "y", tuple(y.shape), allowed)
        process = denoiser.process
        self.latest = 1.0
        if process.basis.shape:
            first = process.level(1.0)
            ratio = float(torch.as_tensor(first.alpha / first.sigma).min())
            if ratio < _SMALLEST_RATIO:
                problem = f"{process!r} has alpha / sigma = {ratio:.2g} in a mode at t = 1, where the derivative of a"
                remedy = "Use a process with larger alpha, such as one with a `floor`."
                raise ParameterError("denoiser", f"{problem} denoiser does not give the covariance of x0. {remedy}")
        else:
            self.latest = float(process.time_at(torch.tensor(2 * math.log(_CLAMPED_RATIO), dtype=torch.float64)))
        self._copy_interface(denoiser)
        self.denoiser = denoiser
        self.operator = operator
        self.noise_std = noise_std
        self.chunk = chunk
        self.register_buffer("y", y.detach().clone())

    @abstractmethod
    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """The correction of E[x0 | u] by the measurement, (B, *modes).

        Args:
            residual: y - A E[x0 | u], (B, *measured).
            push: Maps a measurement w, (B, *measured), to Cov[x0 | u] A^T w in modes, (B, *modes).
            level: Time and coefficients of the state.
        """

    def forward(self, u: Tensor, level: Level, **cond: Tensor) -> Prediction:
        """Expected data and noise given state and measurement; see `Denoiser.forward`.

        At most `chunk` samples are differentiated together: the memory grows with the chunk, not with the batch.
        """
        if len(self.y) not in (1, len(u)):
            raise ParameterError("y", f"{len(self.y)} measurements for {len(u)} samples; one each, or one, is needed.")
        y = self.y.to(u).expand(len(u), *self.y.shape[1:])
        chunks = [
            self._predict(u[rows], y[rows], slice_level(level, rows), {key: value[rows] for key, value in cond.items()})
            for rows in (slice(start, start + self.chunk) for start in range(0, len(u), self.chunk))
        ]
        x0, eps, learned = zip(*chunks)
        variance = torch.cat(learned) if self.learned_variance else None  # that of the unconditional model
        return Prediction(torch.cat(x0), torch.cat(eps), level, variance)

    def _predict(
        self, u: Tensor, y: Tensor, level: Level, cond: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.inference_mode(False), torch.enable_grad():
            evaluated = self._evaluation_level(u, level)
            state = scale_by(evaluated.sigma / level.sigma, u.detach()).clone().requires_grad_()
            prediction = self.denoiser(state, evaluated, **cond)
            measured = self.operator.apply(self.process.basis.inverse(prediction.x0))
            if not measured.requires_grad:
                problem = f"{type(self.denoiser).__name__} is not differentiable with respect to its input"
                raise ParameterError("denoiser", problem)

            def push(w: Tensor) -> Tensor:
                (gradient,) = torch.autograd.grad(measured, state, w, retain_graph=True)
                return evaluated.sigma**2 / evaluated.alpha * gradient

            shift = self.shift(y - measured.detach(), push, evaluated).detach()
        x0 = prediction.x0.detach() + shift
        # At the level itself from the prediction's eps: u - alpha x0 would cancel.
        eps = replace_x0(prediction, x0).eps.detach() if evaluated is level else eps_of(x0, u, level)
        variance = prediction.variance_interpolation
        return x0.to(u.dtype), eps.to(u.dtype), None if variance is None else variance.detach().to(u.dtype)

    def _evaluation_level(self, u: Tensor, level: Level) -> Level:
        """The level itself, or the nearest with alpha / sigma >= 1e-3: at alpha = 0 the derivative vanishes."""
        if isinstance(level.time, Tensor):
            late = bool((level.time > self.latest).any())
            return self.process.level(level.time.flatten().clamp(max=self.latest), u) if late else level
        return self.process.level(self.latest) if level.time > self.latest else level


class DPS(Posterior):
    """Diffusion posterior sampling: p(y | u) is approximated by N(A E[x0 | u], s^2 I), that is W = scale / s^2.

    Chung et al. 2023, eq. 11 and 16, with the 1 / (2 s^2) of the Gaussian's logarithm for their rho; A may be any
    differentiable map there. The covariance of x0 is neglected: the measurement is weighted too much at high noise
    levels, and the samples are too narrow (docs/inverse.md has numbers). The shift is up to Cov[x0 | u] / s^2 times the
    residual: for s below the standard deviation of the data a solver needs proportionally more steps. The paper's
    algorithm 1 divides the shift by the norm of the residual and adds it after the step of one solver, which is not
    expressible as a denoiser.

    Args:
        scale: Factor of the guidance, >= 0; 1 is the formula.
    """

    def __init__(
        self, denoiser: Denoiser, operator: Operator, y: Tensor, noise_std: float, scale: float = 1.0, chunk: int = 64
    ) -> None:
        super().__init__(denoiser, operator, y, noise_std, chunk)
        require(0 <= scale < math.inf, "scale", scale, "a number >= 0")
        self.scale = scale

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (y - A x0) scale / s^2; see `Posterior.shift`."""
        return push(self.scale / self.noise_std**2 * residual)  # eq. (16)


class PiGDM(Posterior):
    """Pseudo-inverse guidance: p(x0 | u) is approximated by N(E[x0 | u], r^2 I), so W = (r^2 A A^T + s^2 I)^{-1}.

    Song et al. 2023, eq. 7-8. r^2 = d^2 sigma^2 / (alpha^2 d^2 + sigma^2) is the posterior variance of a pixel of
    variance d^2 (the paper's, with d = 1: section 3.2). Exact for data N(m, d^2 I) and any A. W is applied by the
    operator's singular value decomposition; the process must have one SNR for all modes.

    Args:
        data_std: d > 0, standard deviation of the data around their mean.
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
        require(0 < data_std < math.inf, "data_std", data_std, "a number > 0")
        if self.process.basis.shape:
            problem = f"PiGDM needs one SNR for all modes; {self.process!r} has several. Use MomentMatching."
            raise ParameterError("denoiser", problem)
        self.data_std = data_std

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (r^2 A A^T + s^2 I)^{-1} (y - A x0); see `Posterior.shift`."""
        spread = self.data_std**2 * level.sigma**2 / (level.alpha**2 * self.data_std**2 + level.sigma**2)
        if not isinstance(spread, Tensor):
            return push(self._weighted(residual, spread))
        pairs = zip(residual, spread.flatten().tolist())
        return push(torch.stack([self._weighted(row, r2) for row, r2 in pairs]))

    def _weighted(self, residual: Tensor, spread: float) -> Tensor:
        return self.operator.gram(residual, lambda gram: 1 / (spread * gram + self.noise_std**2))


class MomentMatching(Posterior):
    """p(x0 | u) is approximated by the Gaussian with its moments: W = (A Cov[x0 | u] A^T + s^2 I)^{-1}.

    Exact for Gaussian data of any covariance, in any basis (Boys et al. 2024, eq. 9; Rozet et al. 2024, section 4,
    solve with it by conjugate gradients, as here). Each iteration is one backward pass. A network's Jacobian may be
    indefinite: the iteration of a sample stops at a direction of non-positive curvature.

    Args:
        iterations: Maximal number of conjugate gradient steps, at least 1.
        tolerance: Relative residual at which the iteration of a sample stops, in (0, 1).
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
        require(0 < tolerance < 1, "tolerance", tolerance, "a number in (0, 1)")
        self.iterations = iterations
        self.tolerance = tolerance

    def shift(self, residual: Tensor, push: Callable[[Tensor], Tensor], level: Level) -> Tensor:
        """Cov A^T (A Cov A^T + s^2 I)^{-1} (y - A x0) by conjugate gradients; see `Posterior.shift`."""
        shape = residual.shape
        solution = torch.zeros_like(residual).flatten(1)
        remainder = residual.flatten(1)
        direction = remainder
        square = remainder.square().sum(1, keepdim=True)
        target = self.tolerance**2 * square
        active = square > target
        for _ in range(self.iterations):
            if residual.device.type == "cpu" and not active.any():  # on other devices this would synchronize
                break
            spread = self.operator.apply(self.process.basis.inverse(push(direction.reshape(shape)))).to(residual.dtype)
            image = spread.flatten(1) + self.noise_std**2 * direction
            curvature = (direction * image).sum(1, keepdim=True)
            active = active & (curvature > 0)
            length = torch.where(active, square / curvature, 0.0)  # 0 for converged samples, which do not change
            solution, remainder = solution + length * direction, remainder - length * image
            previous, square = square, remainder.square().sum(1, keepdim=True)
            direction = remainder + torch.where(active, square / previous, 0.0) * direction
            active = active & (square > target)
        return push(solution.reshape(shape))
