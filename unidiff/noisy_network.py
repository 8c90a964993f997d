"""What networks share that see noisy states and denoise nothing: classifiers and contrastive encoders."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from unidiff.arguments import PlainArguments
from unidiff.noise_condition import NoiseCondition, Timestep, apply_network
from unidiff.process.base import Process
from unidiff.process.level import Level, scale_by

__all__ = ["NoisyNetwork"]


class NoisyNetwork(PlainArguments, nn.Module):
    """A network on states of any noise level of one process.

    Its inputs are those of a NeuralDenoiser's network: pixels, divided by sqrt(alpha^2 + sigma^2) where that is one
    number, and the noise condition.

    Args:
        process: The process of the noisy states.
        backbone: The network.
        noise_condition: How the noise level is passed to the network; None for Timestep.
    """

    known: ClassVar[tuple[str, ...]] = ("shape",)  # attributes that are read from the network

    def __init__(self, process: Process, backbone: nn.Module, noise_condition: NoiseCondition | None = None) -> None:
        super().__init__()
        self.noise_condition = noise_condition or Timestep()
        self.noise_condition.check(process)
        self.process = process
        self.backbone = backbone
        self.shape = getattr(backbone, "shape", None)

    def with_backbone(self, backbone: nn.Module) -> Self:
        """The same model with another network."""
        twin = type(self)(self.process, backbone, self.noise_condition)
        for name in self.known:  # which a wrapper for several processes does not have
            setattr(twin, name, getattr(self, name))
        return twin

    def evaluated(self, network: nn.Module, u: Tensor, level: Level, **cond: Tensor) -> Tensor:
        """The output of the network, or of a part of it, for states in mode coordinates, (B, *modes)."""
        basis = self.process.basis
        scale = 1.0 if basis.shape else 1 / (level.alpha**2 + level.sigma**2) ** 0.5
        return apply_network(network, basis, scale_by(scale, u), self.noise_condition.batch(level, u), **cond)
