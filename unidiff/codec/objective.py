"""Training objectives of autoencoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.codec.codec import Autoencoder, AutoencoderOutput, at_least_float32
from unidiff.errors import ParameterError, require, require_shape

__all__ = [
    "AbsoluteError",
    "CodecObjective",
    "Commitment",
    "PixelError",
    "Reconstruction",
    "SquaredError",
    "Variational",
]


@dataclass(frozen=True)
class PixelError(PlainArguments, ABC):
    """The error of a reconstruction, elementwise."""

    @abstractmethod
    def of(self, difference: Tensor) -> Tensor:
        """The error of each element, of the shape of the difference."""


@dataclass(frozen=True)
class SquaredError(PixelError):
    """The square: a Gaussian decoder's log density, up to its variance."""

    def of(self, difference: Tensor) -> Tensor:
        """See `PixelError.of`."""
        return difference.square()


@dataclass(frozen=True)
class AbsoluteError(PixelError):
    """The absolute value: a Laplacian decoder's, which is sharper at edges."""

    def of(self, difference: Tensor) -> Tensor:
        """See `PixelError.of`."""
        return difference.abs()


@dataclass(frozen=True)
class CodecObjective(PlainArguments, ABC):
    """The loss of an autoencoder: the errors of pixels and of edges and a penalty on latents, per pixel and channel.

    Args:
        error: The error of a reconstructed pixel.
        edge: Weight of the same error of the differences of neighbouring pixels, down and to the right. It favours
            sharp edges without a pretrained perceptual network.
    """

    error: PixelError = field(default_factory=SquaredError)
    edge: float = 0.0

    differentiates_twice: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...]] = ()  # of diffusers; () is any

    def __post_init__(self) -> None:
        require(self.edge >= 0, "edge", self.edge, "a number >= 0")

    def check(self, family: str) -> None:
        """Raise a ParameterError for an autoencoder without the latents that this objective penalizes."""
        if self.families and family not in self.families:
            problem = f"{type(self).__name__} is for {', '.join(self.families)}, not for {family}."
            raise ParameterError("objective", f"{problem} Use Reconstruction.")

    @abstractmethod
    def latents(self, coding: AutoencoderOutput) -> Tensor | float:
        """The latent penalty of each sample, (B,), on the scale of errors summed over pixels."""

    def losses(self, coding: AutoencoderOutput, x: Tensor) -> Tensor:
        """The loss of each sample, (B,), for samples x, (B, C, *sizes)."""
        require_shape("codec", "reconstructions", coding.x.shape, x.shape)
        difference = at_least_float32(coding.x) - x
        total = self.error.of(difference).flatten(1).sum(1)
        if self.edge:
            # The difference of edges is the edge of the difference.
            for axis in range(2, x.ndim):
                total = total + self.edge * self.error.of(difference.diff(dim=axis)).flatten(1).sum(1)
        return (total + self.latents(coding)) / x[0].numel()

    def noise_shape(self, model: Autoencoder, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise of one sample's posterior: that of a latent."""
        return model.layout.latent_shape(shape)

    def batch_losses(self, model: Autoencoder, x: Tensor, uniform: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample of a batch, (B,); see `Objective.batch_losses`."""
        return self.losses(model(x, noise), x)


@dataclass(frozen=True)
class Reconstruction(CodecObjective):
    """The reconstruction error alone, without a latent penalty."""

    def latents(self, coding: AutoencoderOutput) -> float:
        """0."""
        return 0.0


@dataclass(frozen=True)
class Variational(CodecObjective):
    """sum |x - y|^2 + kl KL(q(z|x) || N(0, 1)), over the number of pixels, for AutoencoderKL.

    With the squared error and kl = 2 s^2 this is, up to factor and constant, the negative evidence bound of a decoder
    N(y, s^2) (Kingma & Welling 2014, eq. 3 and 10). A weight as small as 1e-6 keeps the latents from growing, and
    little else (Rombach et al. 2022, appendix G).

    Args:
        kl: Weight of the divergence in nats.
    """

    kl: float = 1e-6

    families: ClassVar[tuple[str, ...]] = ("AutoencoderKL",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kl >= 0, "kl", self.kl, "a number >= 0")

    def latents(self, coding: AutoencoderOutput) -> Tensor:
        """See `CodecObjective.latents`."""
        return self.kl * coding.nats


@dataclass(frozen=True)
class Commitment(CodecObjective):
    """The reconstruction error and the distance from the codebook, for VQModel (van den Oord et al. 2017, eq. 3).

    The distance is diffusers' own, a mean over the latents of the whole batch, the same for each sample:
    |z - sg(e)|^2 + |sg(z) - e|^2 / 4, with the paper's factor on the codebook instead of the commitment.

    Args:
        commitment: Weight of the distance, beside an error that is a mean over pixels.
    """

    commitment: float = 1.0

    families: ClassVar[tuple[str, ...]] = ("VQModel",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.commitment >= 0, "commitment", self.commitment, "a number >= 0")

    def latents(self, coding: AutoencoderOutput) -> Tensor:
        """See `CodecObjective.latents`."""
        return self.commitment * coding.x[0].numel() * coding.commitment
