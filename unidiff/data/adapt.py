"""Data of your own as an OpenDataset: tensors, PyTorch map-style datasets, and iterables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unidiff.annotations import got
from unidiff.data.base import (
    Dataset,
    OpenDataset,
    TensorSource,
    check_range,
    checked_labels,
    require_classes,
    scaled,
    stacked,
)
from unidiff.errors import DataError, ParameterError, require
from unidiff.files import digest_of
from unidiff.noise import global_states_kept
from unidiff.text import count_of

__all__ = ["Data", "as_open_dataset"]

# What `as_open_dataset` takes; a map-style dataset is anything with __len__ and __getitem__.
Data: TypeAlias = "OpenDataset | Dataset | Tensor | np.ndarray | tuple[Any, Any] | torch.utils.data.Dataset | Iterable"

_FORMS = "a tensor, a pair of tensors (samples, labels), a PyTorch Dataset, an iterable or a unidiff data set"


def as_open_dataset(data: Data, name: str = "data") -> OpenDataset:
    """Data of any form as an `OpenDataset`; `unidiff.train` calls it.

    - A tensor or array (N, *shape), or a pair of them (samples, labels): see `TensorSource`.
    - A map-style dataset: len(data) samples, data[i] for i = 0, ..., N - 1. It is read once here, one sample after
      another, to verify it; the checksum is the SHA-256 of the samples. A sample must be a function of its index. An
      augmentation may draw from PyTorch's global generator, which training seeds before each step: it is then a
      function of (seed, step), and the checksum is that of its draws with seed 0. Other sources of randomness make a
      run irreproducible.
    - An iterable: read in its own order, without shuffling, from the beginning in each call of `train`, and again from
      its beginning when it ends. A resumed run reads and skips the samples of the steps done. So it continues bit for
      bit if every iteration yields the same samples. A generator can be iterated once only; it must yield
      steps x batch samples.

    A sample is a tensor, an array or a PIL image, alone or in a tuple (sample,) or (sample, label). It is uint8, of
    which 0 to 255 become -1 to 1, or floating point, unscaled; images are (C, H, W), in [-1, 1]. A label is an
    integer >= 0.

    Args:
        data: The data. An OpenDataset is returned itself; of a `Dataset`, the train split is opened.
        name: For people.

    Raises:
        ParameterError: If there is no sample, or samples are not as described.
        DataError: If the samples of a map-style dataset differ in shape or dtype, or some have no label.
    """
    if isinstance(data, OpenDataset):
        return data
    if isinstance(data, Dataset):
        return data.open()
    if isinstance(data, DataLoader):
        problem = "a DataLoader yields batches, but training makes its own. Pass its dataset, loader.dataset."
        raise ParameterError("data", problem)
    if isinstance(data, (Tensor, np.ndarray)):
        return TensorSource(torch.as_tensor(data), name)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, (Tensor, np.ndarray)) for part in data):
        values, labels = map(torch.as_tensor, data)
        return TensorSource(values, name, labels=labels)
    text = isinstance(data, (str, bytes, dict))
    if not text and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _map_source(data, name)
    if text or isinstance(data, type) or not hasattr(data, "__iter__"):
        remedy = f". Make an object of it: {data.__name__}()" if isinstance(data, type) else ""
        raise ParameterError("data", f"must be {_FORMS}, got {got(data)}{remedy}")
    return _stream_source(cast("Iterable[Any]", data), name)


def _example(item: Any, where: str) -> tuple[Tensor, int | None]:
    """A sample, (*shape) uint8 or finite float32, and its label, of an item of a dataset."""
    wrapped = isinstance(item, tuple) and len(item) in (1, 2)
    x, label = (*item, None)[:2] if wrapped else (item, None)
    if hasattr(x, "getbands"):  # a PIL image
        pixels = np.array(x.convert("L" if x.getbands() in (("L",), ("1",)) else "RGB"))
        x = np.atleast_3d(pixels).transpose(2, 0, 1)
    if not isinstance(x, (Tensor, np.ndarray)):
        problem = f"must be a tensor, an array or an image, alone or as (sample, label), got {type(x).__name__}"
        raise ParameterError(where, problem)
    x = torch.as_tensor(x)
    numbers = x.dtype == torch.uint8 or x.dtype.is_floating_point
    require(numbers, where, x.dtype, "uint8 or floating point")
    require(x.ndim >= 1 and x.numel() > 0, where, tuple(x.shape), "a tensor (*shape) with at least one axis")
    if label is not None:
        label = int(checked_labels(torch.as_tensor(label).reshape(-1), 1)[0])
    x = x.detach().cpu()
    return check_range(x, where, image=x.ndim > 2) if x.dtype.is_floating_point else x, label


def _map_source(data: Any, name: str) -> OpenDataset:
    count = len(data)
    require(count > 0, "data", data, "at least one sample")
    labels: list[int | None] = []

    def parts() -> Iterator[bytes]:
        first = None
        for i in range(count):
            x, label = _example(data[i], f"data[{i}]")
            first = x if first is None else first
            labels.append(label)
            if (x.shape, x.dtype) != (first.shape, first.dtype):
                problem = f"sample {i} is {x.dtype} of shape {tuple(x.shape)}, and sample 0"
                raise DataError(f"{name}: {problem} {first.dtype} of shape {tuple(first.shape)}. All must be alike.")
            if (label is None) != (labels[0] is None):
                raise DataError(_one_label(name, i))
            yield x.numpy().tobytes()

    with global_states_kept():
        torch.default_generator.manual_seed(0)
        checksum = digest_of(parts())
        shape = tuple(_example(data[0], "data[0]")[0].shape)
    classes = None if labels[0] is None else torch.tensor(labels)
    return _MapSource(name, shape, checksum, labels=classes, data=data, count=count)


def _one_label(name: str, i: int) -> str:
    return f"{name}: only one of the samples 0 and {i} has a label. Give one to all of them, or to none."


@dataclass(repr=False, eq=False, kw_only=True)
class _MapSource(OpenDataset):
    """Samples of a map-style dataset, read when a batch needs them."""

    data: Any
    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        samples = [_example(self.data[i], f"data[{i}]")[0] for i in indices.tolist()]
        return _stack(self, samples, indices, device)


def _stack(source: OpenDataset, samples: Sequence[Tensor], indices: Tensor, device: torch.device | str) -> Tensor:
    for i, x in zip(indices.tolist(), samples):
        if x.shape != source.shape:
            raise DataError(f"{source.name}: sample {i} must have shape {source.shape}, got {tuple(x.shape)}")
    return scaled(stacked(samples, device))


def _stream_source(data: Iterable[Any], name: str) -> OpenDataset:
    source = _StreamSource(name, (), "stream", data=data)
    x, source.first_label = _example(source.first(), "sample 0")
    source.shape = tuple(x.shape)
    return source


@dataclass(repr=False, eq=False, kw_only=True)
class _StreamSource(OpenDataset):
    """Samples of an iterable, read in order; see `as_open_dataset`."""

    data: Iterable[Any]
    first_label: int | None = None
    _iterator: Iterator[Any] = field(default_factory=lambda: iter(()), init=False)
    _next: int = field(default=0, init=False)  # the sample that the iterator yields next
    _classes: int | None = field(default=None, init=False)

    sequential = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: samples of shape {self.shape}>"

    def __len__(self) -> int:
        raise DataError(f"{self.name} is an iterable: its samples cannot be counted, or taken out of order.")

    def first(self) -> Any:
        """The first sample, which stays the next one."""
        self._iterator = iter(self.data)
        for item in self._iterator:
            self._iterator = chain([item], self._iterator)
            return item
        raise ParameterError("data", "must yield at least one sample, got an empty iterable")

    def _take(self, index: int) -> Any:
        """The sample of an index, after reading those before it."""
        once = iter(self.data) is self.data
        if index < self._next and not once:
            self._iterator, self._next = iter(self.data), 0
        if index < self._next:
            raise DataError(f"{self.name} is read, and a generator cannot be read twice. Make a new one for each run.")
        while True:
            for item in self._iterator:
                self._next += 1
                if self._next > index:
                    return item
            if once:
                problem = f"{self.name} ended after {count_of(self._next, 'sample')}, but sample {index} is needed"
                raise DataError(f"{problem}; a generator must yield steps x batch. Pass a list, or take fewer steps.")
            self._iterator = iter(self.data)

    def check_labels(self, classes: int) -> None:
        if self.first_label is None:
            super().check_labels(classes)
        self._classes = classes  # what the labels are compared with as they are read

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        return self.examples(indices, device)[0]

    def examples(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
        samples, labels = zip(*(_example(self._take(i), f"sample {i}") for i in indices.tolist()))
        for i, label in zip(indices.tolist(), labels):
            if (label is None) != (self.first_label is None):
                raise DataError(_one_label(self.name, i))
        x = _stack(self, samples, indices, device)
        if self.first_label is None:
            return x, None
        if self._classes is not None:
            require_classes(self.name, max(labels), self._classes)
        return x, torch.tensor(labels)
