"""Velocities of the flow of a process whose mean is not linear in the data: exact on a data set, or by a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require, require_shape
from unidiff.noise_condition import NoiseCondition, Timestep, apply_network
from unidiff.process.level import Level
from unidiff.process.per_sample import PerSampleHeat

__all__ = ["PerSamplePosterior", "VelocityField", "VelocityNetwork"]


class VelocityField(PlainArguments, nn.Module, ABC):
    """The expected velocity E[du/dt | u_t] of a process. The flow along it has the process's distribution at each time.

    Attributes:
        process: The process that made the state noisy.
        shape: Shape of one sample, without the batch axis; None if it is not known.
        differentiable: Whether gradients pass through its velocities, to its parameters and its state.
    """

    process: PerSampleHeat
    shape: tuple[int, ...] | None = None
    differentiable: bool = True

    @abstractmethod
    def forward(self, u: Tensor, t: float | Tensor) -> Tensor:
        """The expected velocity, (B, *modes), in the dtype of u.

        Args:
            u: State in modes, (B, *modes).
            t: One time in [t_min, 1], or times (B,).
        """

    def denoise(self, u: Tensor, t: float) -> Tensor:
        """The expected data, (B, *modes), of a state at t_min, where they follow from the velocity."""
        return self.process.still(u, self(u, t), t)


class PerSamplePosterior(VelocityField):
    """Exact conditional expectations when the data are a finite set: the nonlinear twin of `Empirical`.

    Image i is behind the state u_t with probability softmax_i(-1/2 sum_k (u_k - m_k(t, x_i))^2 / sigma_k^2), by Bayes'
    rule; every expectation is a sum with these weights. There is one time for all samples.

    Args:
        process: The process of the noisy states.
        data: The data set in pixels, (N, *shape).
    """

    data: Tensor

    def __init__(self, process: PerSampleHeat, data: Tensor) -> None:
        super().__init__()
        require(data.ndim >= 2 and len(data) > 0, "data", tuple(data.shape), "a tensor (N, *shape) with N at least 1")
        self.process = process
        self.shape = tuple(data.shape[1:])
        self.register_buffer("data", process.basis.forward(data.to(torch.float64)))  # in modes

    def weights(self, u: Tensor, t: float | Tensor) -> Tensor:
        """Probability of each image, (B, N) float64, behind states (B, *modes) at one time."""
        sigma = self.process.sigma(t, self.data[:1])
        means, state = (self.process.mean(self.data, t) / sigma).flatten(1), (u.double() / sigma).flatten(1)
        # |state|^2 is the same for all images and cancels in the softmax.
        return (state @ means.T - means.square().sum(1) / 2).softmax(-1)

    def x0(self, u: Tensor, t: float | Tensor) -> Tensor:
        """E[u_0 | u_t], (B, *modes)."""
        return self._expected(self.weights(u, t), self.data, u)

    def mean(self, u: Tensor, t: float | Tensor, s: float | Tensor) -> Tensor:
        """E[m(s, u_0) | u_t], (B, *modes): not m(s, E[u_0 | u_t])."""
        return self._expected(self.weights(u, t), self.process.mean(self.data, s), u)

    def forward(self, u: Tensor, t: float | Tensor) -> Tensor:
        # E[m' | u_t] + sigma' / sigma (u_t - E[m | u_t]): if image i is the data, the noise is (u - m_i) / sigma.
        rate = self.process.log_sigma_rate(t, self.data[:1])
        values = self.process.mean_rate(self.data, t) - rate * self.process.mean(self.data, t)
        return self._expected(self.weights(u, t), values, u) + (rate * u).to(u.dtype)

    def denoise(self, u: Tensor, t: float) -> Tensor:
        return self.x0(u, t)

    @staticmethod
    def _expected(weights: Tensor, values: Tensor, u: Tensor) -> Tensor:
        """Sums of values (N, *modes) with weights (B, N), shaped like u and in its dtype."""
        return (weights @ values.flatten(1)).reshape(u.shape).to(u.dtype)


class VelocityNetwork(VelocityField):
    """A network that predicts the velocity, trained by regression on the velocities of noisy images.

    E |v(u_t, t) - (m' + sigma' eps)|^2 is least for v = E[m' + sigma' eps | u_t] (flow matching: Lipman et al. 2023,
    theorem 2). The network sees pixels, and its output is multiplied by r(t), the root mean square over pixels of the
    velocity of the linear process, so that its targets are of about unit size.

    Args:
        process: The process of the noisy states, fitted to the data.
        backbone: The network: called with pixels (B, *shape) and the noise condition (B,), answers (B, *shape).
        noise_condition: How the noise level is passed to the network; None for Timestep.
    """

    def __init__(
        self, process: PerSampleHeat, backbone: nn.Module, noise_condition: NoiseCondition | None = None
    ) -> None:
        super().__init__()
        if getattr(backbone, "learned_variance", False):
            raise ParameterError("backbone", "a velocity has no variance to learn. Leave learned_variance out.")
        self.process = process
        self.noise_condition = noise_condition or Timestep()
        self.noise_condition.check(process.linear)
        self.backbone = backbone
        self.shape = getattr(backbone, "shape", None)

    def scale(self, t: float | Tensor, like: Tensor) -> Tensor:
        """r(t) = (mean_k (alpha_k'^2 S_k + sigma_k'^2))^(1/2) of the linear process: broadcasts against `like`."""
        linear = self.process.linear
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu").detach().reshape(-1)
        level = linear.level(times, torch.empty(len(times), *linear.shape, dtype=torch.float64))
        square = level.alpha_rate**2 * linear.power() + level.sigma_rate**2
        return square.flatten(1).mean(1).sqrt().reshape(-1, *[1] * (like.ndim - 1)).to(like)

    def output(self, u: Tensor, t: float | Tensor) -> Tensor:
        """The velocity over r(t), (B, *modes), as the network predicts it."""
        basis = self.process.basis
        # Where modes differ in SNR the noise condition depends on the time alone.
        level = Level(t, math.nan, math.nan, math.nan)
        velocity = apply_network(self.backbone, basis, u, self.noise_condition.batch(level, u))
        require_shape("backbone", "predictions", velocity.shape, u.shape)
        return basis.forward(velocity)

    def forward(self, u: Tensor, t: float | Tensor) -> Tensor:
        return self.scale(t, u) * self.output(u, t)

    def losses(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Squared error of the velocity over r(t)^2, a mean over pixels: (B,).

        Args:
            x: Clean data in pixels, (B, *shape).
            eps: Standard normal noise, (B, *modes).
            t: One time per sample, (B,).
        """
        u0 = self.process.basis.forward(x)
        target = self.process.velocity(u0, eps, t) / self.scale(t, u0)
        return (self.output(self.process.perturb(u0, eps, t), t) - target).square().flatten(1).mean(1)
