"""CelebA: 202,599 faces with 40 attributes, from the official files."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from unidiff.data.base import OpenDataset, require_split
from unidiff.data.folder import ColourSquares, ImageFiles, ImageFolder
from unidiff.data.image import decode
from unidiff.errors import DataError, ParameterError
from unidiff.files import digest_of
from unidiff.reading import Unreadable, read_bytes

__all__ = ["CelebA"]

_IMAGES, _SPLITS, _ATTRIBUTES = "img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"
_LIST_LIMIT = 100_000_000  # bytes; the attributes have 26 million
_PLACE = (
    f"The aligned images {_IMAGES}.zip (unpack it), {_SPLITS} and {_ATTRIBUTES} are at "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html."
)


@dataclass(frozen=True)
class CelebA(ColourSquares):
    """CelebA (Liu et al., 2015), aligned: 162,770 images to train on and 19,962 to test; validation is not used.

    The folder holds img_align_celeba/ with the images, 178 wide and 218 high, and list_eval_partition.txt with the
    splits, whose md5 is verified; every image of the split must be there. Without the list of splits it is read as an
    `ImageFolder`, which `stand_in` reports. Images are decoded on demand: the centre square of 178 pixels, resized.
    Nothing is downloaded. The checksum is the SHA-256 of the names and sizes of the split's files.

    Args:
        root: The folder. If relative, it may be under $UNIDIFF_DATA.
        size: Height and width in pixels, at least 8.
        attribute: A column of list_attr_celeba.txt, such as "Smiling", whose -1 and 1 become the classes 0 and 1; None
            for no labels.
    """

    root: str = "celeba"
    size: int = 64
    attribute: str | None = None

    md5: ClassVar[dict[str, str]] = {
        _SPLITS: "d32c9cbf5e040fd4025c592c306e6668",
        _ATTRIBUTES: "75e246fa4810816ffd6ee81facbd244c",
    }

    @property
    def classes(self) -> int | None:
        """2 with an attribute."""
        return None if self.attribute is None else 2

    def open(self, split: str = "train") -> OpenDataset:
        """List and verify the split's files, which are decoded when a batch needs them; see `Dataset.open`."""
        require_split(split)
        root = self.find_root(_PLACE)
        top = root / _IMAGES
        if not os.path.isfile(root / _SPLITS):
            return self._folder(root, split)
        number = "0" if split == "train" else "2"
        rows = [line.split() for line in self._text(root / _SPLITS).splitlines()]
        names = [name for name, *rest in rows if rest == [number]]
        sizes = {name: _size(top / name) for name in names}
        missing = [name for name in names if not sizes[name]]
        if missing:
            problem = f"{len(missing)} of {len(names)} images of the {split} split are missing, unreadable or empty"
            raise DataError(f"root: {top}: {problem}, such as {missing[0]}. {_PLACE}")
        decode(top / names[0], self.size, 3)  # a folder of no images is reported before training
        labels, class_names = self._labels(root, names)
        checksum = digest_of(f"{name} {sizes[name]}\n".encode() for name in names)
        files = [top / name for name in names]
        return ImageFiles(f"CelebA {split}", self.shape, checksum, labels=labels, class_names=class_names, files=files)

    def _labels(self, root: Path, names: list[str]) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
        if self.attribute is None:
            return None, None
        _, header, *rows = self._text(root / _ATTRIBUTES).splitlines()
        if self.attribute not in header.split():
            raise ParameterError("attribute", f"must be one of {', '.join(header.split())}; got {self.attribute!r}")
        column = 1 + header.split().index(self.attribute)
        values = {cells[0]: cells[column] for cells in map(str.split, rows)}
        labels = torch.tensor([int(values[name] == "1") for name in names])
        return labels, (f"not {self.attribute}", self.attribute)

    def _text(self, path: Path) -> str:
        """The content of a list, verified."""
        try:
            content = read_bytes(path, _LIST_LIMIT)
        except Unreadable as error:
            raise DataError(f"root: {path} cannot be read ({error.problem}). {_PLACE}") from error
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != self.md5[path.name]:
            raise DataError(f"root: {path} has the md5 {md5} instead of {self.md5[path.name]}: it is damaged. {_PLACE}")
        return content.decode()

    def _folder(self, root: Path, split: str) -> OpenDataset:
        if self.attribute is not None:
            raise DataError(f"attribute: {root} has no {_SPLITS}, which goes with the attributes. {_PLACE}")
        try:
            source = ImageFolder(str(root), self.size, 3).open(split)
        except DataError as error:
            raise DataError(f"{error} {_PLACE}") from error
        source.stand_in = f"{root.name} has no {_SPLITS}; it is read as a folder of images, {source.name}."
        source.labels = source.class_names = None
        return source


def _size(path: Path) -> int:
    """Bytes of a regular file that can be read; 0 if there is none, or only a broken link."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else 0
