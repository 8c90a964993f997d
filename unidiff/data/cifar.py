"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes, from the official files or a folder of images."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from unidiff.data.base import OpenDataset, TensorSource, content_checksum, require_split
from unidiff.data.folder import ColourSquares, ImageFolder
from unidiff.data.image import resize
from unidiff.errors import DataError
from unidiff.reading import Unreadable, read_bytes

__all__ = ["CIFAR10"]

_ARCHIVE, _FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
_PLACE = "The binary version, cifar-10-binary.tar.gz, is at https://www.cs.toronto.edu/~kriz/cifar.html."
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue values, row by row


@dataclass(frozen=True)
class CIFAR10(ColourSquares):
    """CIFAR-10 (Krizhevsky, 2009): 50,000 images to train on and 10,000 to test.

    Read from the archive of the binary version, whose published md5 is verified; or from its unpacked files, whose
    sizes and numbers of images per class are; or from a folder `train/CLASS/...`, `test/CLASS/...` of images, whose
    names of classes are. Fewer images than the official ones are reported by `stand_in`. The pickled Python version is
    not read, because loading a pickle runs code. Nothing is downloaded. The checksum is the SHA-256 of the 32x32
    pixels, or that of `ImageFolder`.

    Args:
        root: The archive, or the folder that holds it, the unpacked files or the images. If relative, it may be under
            $UNIDIFF_DATA.
        size: Height and width in pixels, at least 8; other than 32 by interpolation.
    """

    root: str = "cifar10"
    size: int = 32

    classes: ClassVar[int] = 10
    class_names: ClassVar[tuple[str, ...]] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    archive_md5: ClassVar[str] = "c32a1d4ab5d03f1284b67883e8d87530"
    per_class: ClassVar[int] = 1000  # images of each class in the test file, and in the five train files on average

    def open(self, split: str = "train") -> OpenDataset:
        """Find, verify and read the split; see `Dataset.open`."""
        require_split(split)
        root = self.find_root(_PLACE)
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
        archive = root if os.path.isfile(root) else root / _ARCHIVE
        folder = root / _FOLDER if os.path.isdir(root / _FOLDER) else root
        if os.path.isfile(archive):
            return self._source(split, self._unpacked(archive, names), archive)
        if os.path.isfile(folder / names[0]):
            return self._source(
                split, [self._content(folder / name, 20 * self.per_class * _RECORD) for name in names], folder
            )
        if os.path.exists(root / "cifar-10-batches-py") or os.path.exists(root / "data_batch_1"):
            raise DataError(f"root: {root} holds the pickled Python version, which is not read. {_PLACE}")
        return self._images(root, split)

    def _unpacked(self, archive: Path, names: list[str]) -> list[bytes]:
        """The content of some files of the archive."""
        md5 = hashlib.md5(self._content(archive, 61 * self.per_class * _RECORD), usedforsecurity=False).hexdigest()
        if md5 != self.archive_md5:
            problem = f"root: {archive} has the md5 {md5}, and {_ARCHIVE} has {self.archive_md5}"
            raise DataError(f"{problem}: it is damaged, cut short or another file. {_PLACE}")
        with tarfile.open(archive) as tar:  # nothing is written: members are read into memory
            return [file.read() for name in names if (file := tar.extractfile(f"{_FOLDER}/{name}")) is not None]

    @staticmethod
    def _content(path: Path, limit: int) -> bytes:
        try:
            return read_bytes(path, limit)
        except Unreadable as error:
            raise DataError(f"root: {path} cannot be read ({error.problem}). {_PLACE}") from error

    def _source(self, split: str, contents: list[bytes], place: Path) -> TensorSource:
        expected, each = 10 * self.per_class * _RECORD, self.per_class * len(contents)
        for number, content in enumerate(contents, 1):
            if len(content) != expected:
                problem = f"{split} file {number} has {len(content)} bytes instead of {expected}"
                raise DataError(f"root: {place}: {problem}; it is damaged or cut short. {_PLACE}")
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, _RECORD)
        labels = torch.from_numpy(records[:, 0].astype(np.int64))
        counts = labels.bincount(minlength=10).tolist()
        if counts != [each] * 10:
            problem = f"the {split} files have {counts} images of the classes instead of {each} each"
            raise DataError(f"root: {place}: {problem}; they are damaged. {_PLACE}")
        pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
        values, checksum = resize(pixels, self.size), content_checksum(pixels)
        return TensorSource(values, f"CIFAR-10 {split}", checksum, None, labels, self.class_names)

    def _images(self, root: Path, split: str) -> OpenDataset:
        source = ImageFolder(str(root), self.size, 3).open(split)
        if source.class_names != self.class_names:
            problem = (
                f"root: {root} has neither the files of CIFAR-10 nor a subfolder of images for each of its classes"
            )
            raise DataError(f"{problem} ({', '.join(self.class_names)}). {_PLACE}")
        source.name = f"CIFAR-10 {split}, images of {root.name}"
        official = 10 * self.per_class * (5 if split == "train" else 1)
        if len(source) != official:
            source.stand_in = f"{root.name} has {len(source)} images in {split}; CIFAR-10 has {official}."
        return source
