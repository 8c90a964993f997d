"""What every network of the library promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from unidiff.errors import ParameterError

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """A network from pixels to pixels. It knows nothing of processes or parameterizations.

    Attributes:
        shape: Shape of one sample, without the batch.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,): a number in about [0, 1000], larger = more noise.
            **cond: Conditions by name, each with B rows. A backbone refuses those it was not built for.

        Returns:
            The network's output, (B, *shape).
        """

    def _refuse(self, cond: Mapping[str, Tensor]) -> None:
        """Raise if an unconditional backbone is given conditions: to ignore a label silently would hide a mistake."""
        if cond:
            name = type(self).__name__
            raise ParameterError("backbone", f"{name} is unconditional, but was given {', '.join(sorted(cond))}.")
