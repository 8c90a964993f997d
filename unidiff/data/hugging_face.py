"""Images of a data set in the format of the Hugging Face library `datasets`."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff import search_paths
from unidiff.data.base import Dataset, OpenDataset, require_split, scaled, stacked
from unidiff.data.image import FILE_LIMIT, decode
from unidiff.distribution import install
from unidiff.errors import DataError, ParameterError, is_whole, require, require_whole
from unidiff.files import digest_of
from unidiff.reading import read_bytes
from unidiff.search_paths import Absent

__all__ = ["HuggingFaceImages"]

_HELD_OUT = ("test", "validation", "valid", "val")
_READ_TOGETHER = 1000  # rows


@dataclass(frozen=True)
class HuggingFaceImages(Dataset):
    """Images of a Hugging Face data set, short side resized to `size` (antialiased), then the centre cut out.

    Needs `pip install 'unidiff-diffusion[datasets]'`. Splits: "train", and "test" or else "validation"; if there is
    none of these, every tenth row of the train split (9, 19, 29, ...) is the test split, the others the train split.
    Opening reads every row once; the checksum is the SHA-256 of the encoded images. They are decoded on demand.

    Args:
        path: A folder written by the library's `save_to_disk`, which may be under $UNIDIFF_DATA; else what its
            `load_dataset` takes, a folder of Parquet files or a name on the hub, which is downloaded once unless the
            environment variable UNIDIFF_OFFLINE is 1.
        image: The column of the images.
        label: The column of the classes, of integers >= 0 or the library's ClassLabel; None for no labels.
        size: Height and width in pixels, at least 8.
        channels: 1 for grey, 3 for colour; images are converted.
        subset: The configuration of a data set that has several.
        revision: The branch, tag or commit on the hub. A branch may move: name a commit for a run to be repeated.
    """

    path: str
    image: str = "image"
    label: str | None = None
    size: int = 32
    channels: int = 3
    subset: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)
        require(self.channels in (1, 3), "channels", self.channels, "1 (grey) or 3 (colour)")

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, size, size)."""
        return (self.channels, self.size, self.size)

    def open(self, split: str = "train") -> OpenDataset:
        """Load the data set and verify the split's columns; see `Dataset.open`."""
        require_split(split)
        rows, column = self._rows(split), self.image
        self._require_column("image", column, rows)
        digests, labels = [], None
        if self.label is not None:
            self._require_column("label", self.label, rows)
            labels = _labels(rows[self.label][:])
        for start in range(0, len(rows), _READ_TOGETHER):
            digests.append(digest_of(map(_content, rows[start : start + _READ_TOGETHER][column])).encode())
        names = getattr(rows.features[self.label], "names", None) if self.label is not None else None
        source = _Rows(
            f"{Path(self.path).name} {split}",
            self.shape,
            digest_of(digests),
            labels=labels,
            class_names=tuple(names) if names else None,
            rows=rows,
            column=column,
        )
        source.batch(torch.tensor([0]))  # images that cannot be decoded are reported before training
        return source

    def _rows(self, split: str) -> Any:
        """The rows of a split, images not decoded."""
        if find_spec("datasets") is None:
            raise ParameterError("path", f"reading it needs the library `datasets`: {install('datasets')}.")
        import datasets

        try:
            folder = search_paths.find(self.path, "path")
        except Absent as absent:
            try:
                search_paths.require_online()
            except Absent as offline:
                raise Absent(f"{absent} As a name on the hub it cannot be used: {offline}.") from None
            folder = None
        try:
            if folder and any(os.path.isfile(folder / name) for name in ("dataset_dict.json", "dataset_info.json")):
                loaded = datasets.load_from_disk(str(folder))
            else:
                loaded = datasets.load_dataset(str(folder or self.path), self.subset, revision=self.revision)
        except Exception as error:  # the library raises errors of many kinds
            raise DataError(f"path: {self.path} cannot be loaded ({type(error).__name__}: {error}).") from error
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        held_out = next((name for name in _HELD_OUT if name in splits), None)
        if "train" not in splits:
            raise DataError(f"path: {self.path} has the splits {', '.join(splits)}, but no train.")
        rows = splits["train" if split == "train" or held_out is None else held_out].with_format(None)
        if held_out is None:
            rows = rows.select([i for i in range(len(rows)) if (i % 10 == 9) == (split == "test")])
        if len(rows) == 0:
            raise DataError(f"path: {self.path} has no samples in its {split} split.")
        if isinstance(rows.features.get(self.image), datasets.Image):
            rows = rows.cast_column(self.image, datasets.Image(decode=False))
        return rows

    def _require_column(self, parameter: str, column: str, rows: Any) -> None:
        images = [name for name, feature in rows.features.items() if type(feature).__name__ == "Image"]
        allowed = images if parameter == "image" else list(rows.features)
        if column not in allowed:
            problem = f"must be a column of {'images' if parameter == 'image' else 'classes'} of {self.path}"
            raise ParameterError(parameter, f"{problem} ({', '.join(allowed) or 'none'}), got {column!r}")


def _labels(values: Sequence[object]) -> Tensor:
    """The classes of a column; a ParameterError if one is no integer >= 0."""
    for row, value in enumerate(values):
        if not is_whole(value, 0, 2**63 - 1):
            problem = f"got {reprlib.repr(value)} in row {row}"
            if value is None or value == -1:
                problem += ", where the class is missing. Remove such rows, with the library's `filter`."
            else:
                problem += ". Make such a column one of classes with the library's `class_encode_column`."
            raise ParameterError("label", f"must be a column of integers >= 0 or of ClassLabel, {problem}")
    return torch.tensor([int(value) for value in values])  # type: ignore[call-overload]


def _content(cell: Any) -> bytes:
    """The bytes of an encoded image, in the row or in a file of its own."""
    if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
        raise DataError("an image is missing (null). Remove such rows, with the library's `filter`.")
    return cell["bytes"] or read_bytes(cell["path"], FILE_LIMIT)


@dataclass(repr=False, eq=False, kw_only=True)
class _Rows(OpenDataset):
    """Rows of a table, whose images are decoded when a batch needs them."""

    rows: Any
    column: str

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        channels, size, _ = self.shape
        cells, numbers = self.rows[indices.tolist()][self.column], indices.tolist()
        images = [
            decode(BytesIO(_content(cell)), size, channels, f"image {number} of {self.name}")
            for number, cell in zip(numbers, cells)
        ]
        return scaled(stacked(images, device))
