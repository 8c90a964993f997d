"""Data of which nothing but the shape is known: those of a model that was saved without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from unidiff.data.base import Dataset
from unidiff.errors import DataError, is_whole, require, require_whole

__all__ = ["Unavailable"]


@dataclass(frozen=True)
class Unavailable(Dataset):
    """The data of a model that `unidiff.save` was given without them: what needs no data can be done.

    Args:
        sample_shape: Shape of one sample.
        class_count: Number of classes; None if there are none.
    """

    sample_shape: tuple[int, ...]
    class_count: int | None = None

    unknown: ClassVar[bool] = True

    def __post_init__(self) -> None:
        sizes = len(self.sample_shape) > 0 and all(map(is_whole, self.sample_shape))
        require(sizes, "sample_shape", self.sample_shape, "the lengths of a sample's axes, such as (1, 28, 28)")
        if self.class_count is not None:
            require_whole("class_count", self.class_count)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.sample_shape

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        return self.class_count

    @property
    def reason(self) -> str:
        """Why there are none, and what to do about it."""
        return "this model was saved without its data. Save it with unidiff.save(..., data=...), a data set."

    def open(self, split: str = "train") -> NoReturn:
        """Raise a DataError."""
        raise DataError(self.reason)
