"""Images for control branches: what a measurement of the clean image gives a branch to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unidiff.condition.image import Control
from unidiff.conditioning.base import Conditioning
from unidiff.conditioning.palette import ImageConditioning
from unidiff.data.base import Dataset, OpenDataset
from unidiff.errors import require

__all__ = ["ControlImage", "controls_of"]


@dataclass(frozen=True)
class ControlImage(Conditioning):
    """A measurement of the clean image as the condition of a control branch (Zhang et al. 2023).

    It is not joined to the noisy image, but seen by a branch beside the network. A dropped one is black.

    Args:
        image: What is measured, such as Edges.
        name: Name of the condition. That of several must differ; options for images are for the one called `image`.
    """

    image: ImageConditioning
    name: str = "image"

    def __post_init__(self) -> None:
        Control(1, name=self.name)  # a name that a condition can have
        fits = hasattr(self.image, "measure") and hasattr(self.image, "channels")
        require(fits, "image", self.image, "a measurement of images, such as Edges()")

    @property
    def names(self) -> tuple[str, ...]:
        """Its own."""
        return (self.name,)

    @property
    def dropout(self) -> float:
        """That of the measurement."""
        return self.image.dropout

    @property
    def draws(self) -> int:
        """Those of the measurement."""
        return self.image.draws

    @property
    def guides(self) -> bool:
        """No: a guided model sees it in both predictions."""
        return False

    @property
    def measured(self) -> ImageConditioning | None:
        """The measurement, of the condition `image`."""
        return self.image if self.name == "image" else None

    def built_for(self, data: Dataset) -> tuple[Control, ...]:
        """The image of the branch, of the sizes of the samples; see `Conditioning.built_for`."""
        return (Control(self.image.channels(data.shape), tuple(data.shape[1:]), name=self.name),)

    def network(self, data: Dataset, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """None: the branch stands beside the network; see `Conditioning.network`."""
        self.image.network(data, {"image": None})  # a ParameterError for data without such a measurement
        return {}

    def check(self, source: OpenDataset, classes: int | None) -> None:
        """See `Conditioning.check`."""
        self.image.check(source, classes)

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Black; see `Conditioning.null`."""
        return {name: value.new_full(value.shape, -1.0) for name, value in cond.items()}

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        """The measurement, black where the first draw is below `dropout`; see `Conditioning.conditions`."""
        dropped = (uniform[:, 0] < self.dropout).to(x0.device).reshape(-1, *[1] * (x0.ndim - 1))
        return {self.name: self.image.measure(x0, uniform[:, 1:]).masked_fill(dropped, -1.0)}

    def from_samples(self, x: Tensor, shape: tuple[int, ...], uniform: Tensor) -> dict[str, Tensor]:
        """See `Conditioning.from_samples`."""
        (value,) = self.image.from_samples(x, shape, uniform).values()
        return {self.name: value}


def controls_of(control: ImageConditioning | Sequence[ImageConditioning] | None) -> tuple[ControlImage, ...]:
    """One measurement, several or none as the conditions `image`, `image_2`, ..."""
    several = control if isinstance(control, (list, tuple)) else () if control is None else (control,)
    names = ["image", *(f"image_{number}" for number in range(2, len(several) + 1))]
    return tuple(ControlImage(measurement, name) for measurement, name in zip(several, names))
