"""Data sets: Dataset (arguments only), OpenDataset (batches by index), TensorSource (all in one tensor)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unidiff.arguments import PlainArguments
from unidiff.errors import DataError, ParameterError, require
from unidiff.files import digest_of
from unidiff.text import count_of

__all__ = [
    "Dataset",
    "OpenDataset",
    "TensorSource",
    "check_range",
    "checked_labels",
    "content_checksum",
    "require_classes",
    "require_split",
    "scaled",
    "stacked",
]

_READ_TOGETHER = 1000  # samples


@dataclass(frozen=True)
class Dataset(PlainArguments, ABC):
    """Which data: arguments only. Constructing one reads nothing; `open` does.

    Attributes:
        coded: Whether samples are latents of an autoencoder, which `decode` turns into images.
        replaced: The parameter that `kept_in` overrides with the run directory's copy; empty if nothing is kept.
        words: The words of its captions, and `longest` the largest number of them in one; empty if it has none.
        unknown: Whether there are none to open: a model from elsewhere does not tell what it was trained on.
    """

    coded: ClassVar[bool] = False
    replaced: ClassVar[str] = ""
    words: ClassVar[tuple[str, ...]] = ()
    longest: ClassVar[int] = 0
    unknown: ClassVar[bool] = False

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, known without reading the data: (D,) for a vector, else (C, *sizes), channels first."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None if the data have no labels or must be read to count them."""
        return None

    @property
    def features(self) -> str:
        """Name of the shipped network in whose features samples are compared; empty if there is none."""
        return ""

    @property
    def mixture(self) -> tuple[Tensor, float] | None:
        """Means, (K, *shape), and variance of the `GaussianMixture` of equal weights that the data follow, or None."""
        return None

    @property
    def decoded_shape(self) -> tuple[int, ...]:
        """Shape of a decoded sample."""
        return self.shape

    @property
    def images(self) -> Dataset:
        """The data that decoded samples are to resemble: these, or the images of latents."""
        return self

    def decode(self, x: Tensor) -> Tensor:
        """Images, (B, *decoded_shape), of samples of a model, (B, *shape); the identity unless `coded`."""
        return x

    def encode(self, x: Tensor) -> Tensor:
        """The inverse of `decode`, up to the autoencoder's error."""
        return x

    def kept(self) -> dict[str, bytes]:
        """Files that a run must keep for its model to be usable, by path inside it; a DataError if they are lost."""
        return {}

    def kept_in(self, directory: Path) -> Dataset:
        """The same data, with the files that a run directory keeps for the originals; a DataError if it lost them."""
        return self

    @abstractmethod
    def open(self, split: str = "train") -> OpenDataset:
        """Read and verify one split.

        Args:
            split: "train" or "test". No sample is in both.

        Raises:
            DataError: If a file is missing, corrupt, or not what its name says.
            ParameterError: If the split is neither "train" nor "test".
        """

    def look(self, split: str = "train") -> OpenDataset:
        """As `open`, but the values of samples that take time to compute may be left out."""
        return self.open(split)


@dataclass(repr=False, eq=False)
class OpenDataset(PlainArguments, ABC):
    """Opened data. A batch is a function of its indices alone, which is what lets training resume exactly.

    Attributes:
        name: For people: "MNIST train".
        shape: Shape of one sample.
        checksum: "md5:..." or "sha256:..." of what was read; each Dataset documents of what.
        stand_in: None, or one sentence that names the unavailable data and what is used instead.
        labels: Class of each sample, (N,) int64 on the CPU, or None.
        class_names: Name of each class, or None.
        sequential: Whether the samples can be read only in order, 0, 1, 2, ..., without end; they have no number then.
    """

    sequential: ClassVar[bool] = False

    name: str
    shape: tuple[int, ...]
    checksum: str
    stand_in: str | None = None
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {count_of(len(self), 'sample')} of shape {self.shape}>"

    @abstractmethod
    def __len__(self) -> int: ...

    def positions(self) -> tuple[Tensor, int]:
        """Index of each sample in its data set, (N,) on the CPU, and the size of that; here 0, ..., N - 1 and N."""
        return torch.arange(len(self)), len(self)

    @abstractmethod
    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Take samples by index.

        Args:
            indices: Which samples, (B,) integers in [0, N).
            device: Device of the batch.

        Returns:
            The samples, (B, *shape) float32; images are in [-1, 1].

        Raises:
            DataError: If a sample turns out to be unreadable (streams only).
        """

    def examples(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
        """Samples by index, as `batch` takes them, and their labels, (B,) int64 on the CPU, or None."""
        return self.batch(indices, device), None if self.labels is None else self.labels[indices.cpu()]

    def check_labels(self, classes: int) -> None:
        """Raise a DataError unless every sample has a label below `classes`."""
        if self.labels is None:
            raise DataError(f"{self.name} has no labels. Choose data with labels, or a recipe that needs none.")
        require_classes(self.name, int(self.labels.max()), classes)

    def all_batches(self) -> Iterator[Tensor]:
        """All of the samples once, in order."""
        for indices in torch.arange(len(self)).split(_READ_TOGETHER):
            yield self.batch(indices)

    def to(self, device: torch.device | str) -> OpenDataset:
        """The same data, held on a device if they are in memory; labels stay on the CPU."""
        return self

    @property
    def fingerprint(self) -> str:
        """Changes whenever a sample may have: the checksum, if that covers every byte of the samples."""
        return self.checksum

    def prefetch(self, indices: Tensor) -> None:
        """Hint that these samples, (B,) integers, are needed next; it never changes a result."""
        return


class TensorSource(OpenDataset):
    """A whole data set in one tensor.

    Args:
        values: (N, *shape) uint8, which become x / 127.5 - 1 (so 0 is -1 and 255 is 1, exactly), or floating-point
            numbers, which become float32, unscaled. Images, volumes and videos must be in [-1, 1].
        checksum: As in `OpenDataset`, like all others; by default the SHA-256 of the tensor's bytes.
        labels: Integers >= 0, (N,), or None.

    Raises:
        ParameterError: If there is no sample, a dtype, shape or range is another, or N labels are not given.
    """

    def __init__(
        self,
        values: Tensor,
        name: str,
        checksum: str | None = None,
        stand_in: str | None = None,
        labels: Tensor | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        values = _checked(values)
        labels = None if labels is None else checked_labels(labels, len(values))
        checksum = content_checksum(values) if checksum is None else checksum
        super().__init__(name, tuple(values.shape[1:]), checksum, stand_in, labels, class_names)
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """See `OpenDataset.batch`."""
        # Moved before it is converted to float: a quarter of the bytes cross to the device.
        taken = self.values[indices.to(self.values.device, non_blocking=True)].to(device, non_blocking=True)
        return scaled(taken)

    def to(self, device: torch.device | str) -> TensorSource:
        """See `OpenDataset.to`."""
        twin = copy(self)
        twin.values = self.values.to(device)
        return twin


def _checked(values: Tensor) -> Tensor:
    """Values that can be trained on: uint8 or finite float32, at least one sample."""
    require(isinstance(values, Tensor), "values", type(values), "a tensor")
    allowed = values.dtype == torch.uint8 or values.dtype.is_floating_point
    require(allowed, "values", values.dtype, "a tensor of uint8 or floating-point numbers")
    filled = values.ndim >= 2 and values.numel() > 0
    require(filled, "values", tuple(values.shape), "a tensor of shape (N, *shape) with N >= 1")
    if values.dtype == torch.uint8:
        return values
    return check_range(values, "values", image=values.ndim > 3)


def check_range(values: Tensor, parameter: str, *, image: bool) -> Tensor:
    """Floating-point values as float32; raises a ParameterError if they are not finite, or images from 0 to 255."""
    values = values.float()
    low, high = values.min().item(), values.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ParameterError(parameter, "must be finite, got NaN or infinity")
    if image and low >= 0 and high > 1:  # latents may be larger than 1, but are of both signs
        expected = "in [-1, 1] for images, or uint8 from 0 to 255"
        raise ParameterError(parameter, f"must be {expected}, got values from {low:g} to {high:g}")
    return values


def scaled(values: Tensor) -> Tensor:
    """Samples as float32: uint8 x become x / 127.5 - 1."""
    return values.float().div_(127.5).sub_(1.0) if values.dtype == torch.uint8 else values


def stacked(samples: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """A batch of samples read one by one, (B, *shape) as they were stored, on a device, without a wait of the host.

    It crosses to the device before it is scaled or changed otherwise, from memory that a GPU reads by itself.
    """
    pinned = torch.device(device).type == "cuda"
    batch = torch.empty(len(samples), *samples[0].shape, dtype=samples[0].dtype, pin_memory=pinned)
    return torch.stack([*samples], out=batch).to(device, non_blocking=True)


def checked_labels(labels: Tensor, count: int) -> Tensor:
    """Labels as int64, (count,); raises a ParameterError if they are not integers >= 0, one for each sample."""
    integers = not (labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool)
    require(integers, "labels", labels.dtype, "integers")
    require(labels.shape == (count,), "labels", tuple(labels.shape), f"of shape {(count,)}, one for each sample")
    labels = labels.long().cpu()  # in which numbers from 2^63 on are negative
    require(int(labels.min()) >= 0, "labels", int(labels.min()), "integers >= 0")
    return labels


def require_classes(name: str, largest: int, classes: int) -> None:
    """Raise a DataError if the largest label of data is not below the number of classes of a network."""
    if largest >= classes:
        raise DataError(f"{name} has the label {largest}, but the network has {classes} classes.")


def content_checksum(values: Tensor) -> str:
    """SHA-256 of a tensor's bytes in C order, as "sha256:..."."""
    return digest_of([values.cpu().contiguous().numpy().tobytes()])


def require_split(split: str) -> None:
    """Raise a ParameterError unless `split` is "train" or "test"."""
    require(split in ("train", "test"), "split", split, '"train" or "test"')
