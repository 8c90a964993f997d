"""What every network of the library promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unidiff.errors import ParameterError, require_whole

__all__ = ["Backbone", "require_classes", "require_image"]


def require_classes(classes: int | None) -> None:
    """Raise a ParameterError unless this is a number of classes, or None."""
    if classes is not None:
        require_whole("classes", classes, 1, 1_000_000)


def require_image(image: int | None) -> None:
    """Raise a ParameterError unless this is a number of channels, or None."""
    if image is not None:
        require_whole("image", image, 1, 65536)


class Backbone(nn.Module, ABC):
    """A network from pixels to pixels. It knows nothing of processes or parameterizations.

    Attributes:
        shape: Shape of one sample, without the batch.
        classes: Number of classes that the network was built for; None if it knows none.
        image: Channels of the condition `image` that the network was built for; None if it knows none.
        learned_variance: Whether the output's first axis is twice that of `shape`: what the network predicts, then for
            each number of it where the variance of a reverse step lies, from -1 (beta-tilde) to 1 (beta); see
            `Prediction.variance_interpolation`.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    image: int | None = None
    learned_variance: bool = False

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
            **cond: Conditions by name, each with B rows. A backbone refuses those it was not built for.

        Returns:
            The network's output, (B, *shape); twice as long in the first axis with a learned variance.
        """

    def _label(self, cond: Mapping[str, Tensor], count: int) -> Tensor | None:
        """The class of each sample, (B,); the null class, -1, where none is given; None for an unconditional network.

        Raises:
            ParameterError: If there are conditions that the network was not built for: to ignore a label silently would
                hide a mistake.
        """
        name = type(self).__name__
        known = self.condition_names
        if not known and cond:
            raise ParameterError("backbone", f"{name} is unconditional, but was given {', '.join(sorted(cond))}.")
        if unknown := sorted(set(cond) - set(known)):
            problem = f"{name} knows the condition {' and '.join(known)}, but was given {', '.join(unknown)}."
            raise ParameterError("backbone", problem)
        if self.classes is None:
            return None
        if "label" not in cond:
            return torch.full((count,), -1, device=next(self.parameters()).device)
        label = cond["label"]
        if label.shape != (count,):
            raise ParameterError("label", f"the shape {tuple(label.shape)} was given; {(count,)} is needed.")
        # On other devices a look at the values would hold up every step; `unidiff.sample` has looked once.
        if label.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = label[(label < -1) | (label >= self.classes)]
            if len(wrong):
                problem = f"class {int(wrong[0])} was given; the {self.classes} classes are 0 to {self.classes - 1}."
                raise ParameterError("label", problem)
        return label

    def _joined(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Noisy images with the condition `image` as further channels, (B, C + C', H, W); x without images.

        Raises:
            ParameterError: If the image is missing, or has another shape than the network was built for.
        """
        if self.image is None:
            return x
        image, needed = cond.get("image"), (len(x), self.image, *x.shape[2:])
        if image is None or image.shape != needed:
            given = "none" if image is None else f"the shape {tuple(image.shape)}"
            raise ParameterError("image", f"{given} was given; this network needs {needed}. Zeros say nothing.")
        return torch.cat([x, image.to(x.dtype)], dim=1)
