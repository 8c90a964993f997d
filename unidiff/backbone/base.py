"""The interface of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unidiff.errors import ParameterError, require, require_whole

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """A network from pixels to pixels, independent of processes and parameterizations.

    Args:
        shape: Shape of one sample, without the batch; () if the subclass sets the attribute itself.
        classes: Number of classes; None without class conditioning.
        image: Channels of the condition `image`; None without image conditioning. In a recipe it follows from
            `conditioning`.
        learned_variance: Whether the variance of a reverse step is predicted too (Nichol & Dhariwal 2021, eq. 15). The
            output's first axis is then twice that of `shape`: the prediction, then for each of its elements the
            variance on a scale from -1 (beta-tilde) to 1 (beta); see `Prediction.variance_interpolation`.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    image: int | None = None
    learned_variance: bool = False

    def __init__(
        self,
        shape: tuple[int, ...] = (),
        classes: int | None = None,
        image: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        for name, count, most in (("classes", classes, 1_000_000), ("image", image, 65536)):
            if count is not None:
                require_whole(name, count, 1, most)
        require(isinstance(learned_variance, bool), "learned_variance", learned_variance, "true or false")
        values = {"shape": tuple(shape), "classes": classes, "image": image, "learned_variance": learned_variance}
        for name, value in values.items():
            if value:  # otherwise the class attribute holds
                setattr(self, name, value)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions that the network was built for."""
        return ("image",) * (self.image is not None) + ("label",) * (self.classes is not None)

    @property
    def outputs(self) -> int:
        """Size of the output's first axis."""
        return (2 if self.learned_variance else 1) * self.shape[0]

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,): a number in about [0, 1000], larger = more noise.
            **cond: Conditions by name, each with B rows. Conditions that the network was not built for are an error.

        Returns:
            The network's output, (B, *shape); twice as long in the first axis with a learned variance.
        """

    def _label(self, cond: Mapping[str, Tensor], count: int) -> Tensor | None:
        """The class of each sample, (B,); the null class, -1, without a label; None for an unconditional network.

        Raises:
            ParameterError: If there are conditions that the network was not built for.
        """
        supported = self.condition_names
        if unsupported := sorted(set(cond) - set(supported)):
            kind = f"is conditioned on {' and '.join(supported)}" if supported else "is unconditional"
            raise ParameterError("backbone", f"{type(self).__name__} {kind}, but was passed {', '.join(unsupported)}.")
        if self.classes is None:
            return None
        if "label" not in cond:
            return torch.full((count,), -1, device=next(self.parameters()).device)
        label = cond["label"]
        if label.shape != (count,):
            raise ParameterError("label", f"must have shape {(count,)}, got {tuple(label.shape)}")
        # On other devices reading the values would synchronize every step; `unidiff.sample` has checked them once.
        if label.device.type == "cpu" and not torch.compiler.is_compiling():
            invalid = label[(label < -1) | (label >= self.classes)]
            if len(invalid):
                allowed = f"a class from 0 to {self.classes - 1}, or -1 for none"
                raise ParameterError("label", f"must be {allowed}, got {int(invalid[0])}")
        return label.to(next(self.parameters()).device)

    def _joined(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Noisy images with the condition `image` as further channels, (B, C + C', H, W); x without images.

        Raises:
            ParameterError: If the image is missing, or has another shape than the network was built for.
        """
        if self.image is None:
            return x
        image, expected = cond.get("image"), (len(x), self.image, *x.shape[2:])
        if image is None or image.shape != expected:
            actual = "none" if image is None else tuple(image.shape)
            raise ParameterError("image", f"must have shape {expected} (all zeros = unconditional), got {actual}")
        return torch.cat([x, image.to(x)], dim=1)
