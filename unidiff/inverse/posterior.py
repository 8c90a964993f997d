"""Models of the data given a measurement y = A x0 + noise: denoisers that wrap a denoiser, and the exact posterior."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from unidiff.arguments import plain_arguments
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require, require_whole
from unidiff.exact import GaussianMixture
from unidiff.guidance.base import replace_x0, slice_level
from unidiff.inverse.operators import Operator
from unidiff.parameterization import Prediction
from unidiff.process.level import Level, eps_of, scale_by
from unidiff.tensors import check_floats
from unidiff.text import rows_of

__all__ = ["DPS", "MomentMatching", "PiGDM", "Posterior", "conditioned"]

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
        check_floats("y", y, ("B", "*measured"), y.ndim >= 2)
        if denoiser.shape is not None:
            measured = tuple(operator.apply(torch.zeros(1, *denoiser.shape)).shape[1:])
            allowed = f"{rows_of(measured, 'B')}, as {type(operator).__name__} measures samples {tuple(denoiser.shape)}"
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
        self.differentiable = False  # a prediction is already a derivative, whose graph is not kept
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
        r2 = self.data_std**2 * level.sigma**2 / (level.alpha**2 * self.data_std**2 + level.sigma**2)

        def weighted(rows: Tensor, r2: float) -> Tensor:
            return self.operator.gram(rows, lambda gram: 1 / (r2 * gram + self.noise_std**2))

        if not isinstance(r2, Tensor):
            return push(weighted(residual, r2))
        return push(torch.stack([weighted(*pair) for pair in zip(residual, r2.flatten().tolist())]))


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


@plain_arguments
def conditioned(mixture: GaussianMixture, operator: Operator, y: Tensor, noise_std: float = 0.0) -> GaussianMixture:
    """The exact denoiser of x0 given y = A x0 + s n, x0 from a mixture: again a mixture.

    Component k becomes N(m_k + G_k (y - A m_k), (I - G_k A) C_k) with G_k = C_k A^T (A C_k A^T + s^2 I)^{-1}, and its
    weight is multiplied by N(y; A m_k, A C_k A^T + s^2 I).

    Args:
        mixture: The model of the data.
        operator: A.
        y: One measurement, (*measured).
        noise_std: s >= 0; 0 for a noiseless measurement, where A C_k A^T must not be singular.

    Raises:
        ParameterError: If y is not of the shape of a measurement, or noise_std is below 0 or too small for A; where
            the modes of the process differ in SNR, if the covariance of the posterior is not diagonal in them.
    """
    require(0 <= noise_std < math.inf, "noise_std", noise_std, "a number >= 0")
    count, shape, size = len(mixture.means), mixture.shape, math.prod(mixture.shape)
    unit = torch.eye(size, dtype=torch.float64)
    rows = operator.apply(unit.reshape(size, *shape))
    require(rows.shape[1:] == y.shape, "y", tuple(y.shape), f"one measurement, {tuple(rows.shape[1:])}")
    A = rows.flatten(1).mT
    axes = unit.expand(count, size, size) if mixture.axes is None else mixture.axes
    roots = (axes * mixture.variances.sqrt()[:, None, :]).mT.reshape(count * size, *shape)
    roots = mixture.process.basis.inverse(roots).reshape(count, size, size)  # the rows of R_k, C_k = R_k^T R_k
    means = mixture.process.basis.inverse(mixture.means.reshape(count, *shape)).flatten(1)
    projected = roots @ A.mT  # R_k A^T
    spread = projected.mT @ projected + noise_std**2 * torch.eye(len(A), dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(spread)
    if bool((eigenvalues[:, 0] <= 1e-12 * eigenvalues[:, -1]).any()):  # an error of 1e-16 becomes one of 1e-4
        problem = "must be > 0 where A C A^T is singular in float64 (redundant measurements)"
        raise ParameterError("noise_std", f"{problem}, got {noise_std:g}")
    residual = y.to(torch.float64).flatten() - means @ A.mT
    gain = torch.linalg.solve(spread, projected.mT @ roots).mT  # (K, D, m)
    new_means = means + torch.einsum("kdm,km->kd", gain, residual)
    keep = unit - gain @ A
    # Joseph's form is symmetric and positive semi-definite to the last bit.
    covariance = (roots @ keep.mT).mT @ (roots @ keep.mT) + noise_std**2 * gain @ gain.mT
    square = (residual * torch.linalg.solve(spread, residual[..., None])[..., 0]).sum(-1)
    log_weights = mixture.log_weights - 0.5 * (square + torch.linalg.slogdet(spread)[1])
    weights = torch.exp(log_weights - log_weights.max()).clamp(min=1e-300)
    return GaussianMixture(mixture.process, new_means.reshape(count, *shape), covariance, weights)
