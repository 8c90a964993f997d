"""What the training loop uses of a model, of a loss and of conditions."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor, nn

from unidiff.data.base import OpenDataset
from unidiff.errors import ParameterError, require

__all__ = ["Conditions", "Loss", "Trainable", "Trained", "check_network"]


class Trainable(Protocol):
    """A model around the network that is trained, which may be wrapped for several processes."""

    @property
    def backbone(self) -> nn.Module:
        """The network."""

    @property
    def classes(self) -> int | None:
        """Number of classes that it is conditioned on or predicts; None for neither."""

    def with_backbone(self: Trained, backbone: nn.Module) -> Trained:
        """The same model around another network."""


Trained = TypeVar("Trained", bound=Trainable)
Model = TypeVar("Model", bound=Trainable, contravariant=True)


class Loss(Protocol[Model]):
    """What training minimises. It may also have the `coupling` and the `times` of an `Objective`."""

    @property
    def differentiates_twice(self) -> bool:
        """Whether the loss contains a derivative of the network in its input."""

    def noise_shape(self, model: Model, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise that a sample of this shape needs."""

    def batch_losses(self, model: Model, x: Tensor, uniform: Tensor, noise: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample of a batch, (B,).

        Args:
            model: The model in training.
            x: Clean data, (B, *shape).
            uniform: Draws of the uniform distribution on [0, 1), (B,) float64 on the CPU.
            noise: Standard normal noise, (B, *noise_shape).
            **cond: Conditions, each (B, ...).
        """


class Conditions(Protocol):
    """Conditions made from clean data."""

    @property
    def draws(self) -> int:
        """Uniform numbers that each sample needs, at least 1."""

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """Raise a DataError for data that cannot be conditioned on."""

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The conditions of a batch, each with B rows, by name."""


def check_network(model: Trainable, source: OpenDataset) -> None:
    """Raise a ParameterError unless a network has weights to train, and was made for these data."""
    if not any(weight.requires_grad for weight in model.backbone.parameters()):
        raise ParameterError("denoiser", "all of its weights are frozen. Call denoiser.requires_grad_(True) first.")
    expected = getattr(model.backbone, "shape", source.shape)
    require(source.shape == expected, "source", source, f"data of shape {expected}, which the network was made for")
