"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels in ten classes, found on disk or downloaded once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from unidiff import search_paths
from unidiff.data.base import Dataset, TensorSource, require_split, require_stand_in
from unidiff.data.digits import stand_in
from unidiff.data.download import fetch
from unidiff.data.idx import REMEDY, parse, unpack
from unidiff.data.resize import resize
from unidiff.errors import DataError, require_whole
from unidiff.renamed import renamed
from unidiff.search_paths import Absent

__all__ = ["MNIST", "FashionMNIST"]


@dataclass(frozen=True)
class _IDXImages(Dataset):
    """What MNIST and the sets made in its likeness share: four IDX files, 28x28 grey images, ten classes."""

    size: int = 28
    root: str | None = None
    fallback: str | None = None

    title: ClassVar[str]
    folder: ClassVar[str]
    mirrors: ClassVar[tuple[str, ...]]
    class_names: ClassVar[tuple[str, ...]]
    content_md5: ClassVar[dict[str, str]] = {}  # file name -> md5 of the decompressed content
    gz_md5: ClassVar[dict[str, str]] = {}  # file name -> md5 of the .gz file, where only that is published
    counts: ClassVar[dict[str, int]] = {"train": 60000, "test": 10000}

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)
        require_stand_in(self.fallback)
        if self.root is not None:  # a Path is welcome, but the repr of a Data is a recipe: plain text
            object.__setattr__(self, "root", os.fspath(self.root))

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, size, size)."""
        return (1, self.size, self.size)

    @property
    def classes(self) -> int:
        """10."""
        return 10

    def open(self, split: str = "train") -> TensorSource:
        """Find or download the split's two files, verify and read them.

        Args:
            split: "train" (60,000 images) or "test" (10,000).

        Raises:
            DataError: If `root` does not exist; if a file that is found is damaged or is another one; if a file is
                nowhere to be had and no stand-in is allowed.
        """
        require_split(split)
        prefix = "train" if split == "train" else "t10k"
        folders = self._folders()
        try:
            image_file = self._find(f"{prefix}-images-idx3-ubyte", folders)
            label_file = self._find(f"{prefix}-labels-idx1-ubyte", folders)
        except Absent as absent:
            if self.fallback is None:
                raise
            return stand_in(self.title, str(absent.__cause__), self.size, 1, split)
        count = self.counts[split]
        content = self._content(image_file)
        pixels = parse(image_file, content, (count, 28, 28))
        labels = parse(label_file, self._content(label_file), (count,))
        if labels.max() > 9:
            raise DataError(f"{label_file} holds the label {labels.max()}; labels are 0 to 9. {REMEDY}")
        images = resize(torch.from_numpy(pixels.copy()).unsqueeze(1), self.size)
        classes = torch.from_numpy(labels.astype(np.int64))
        return TensorSource(images, f"{self.title} {split}", f"md5:{_md5(content)}", None, classes, self.class_names)

    def _folders(self) -> list[Path]:
        """Where to look, in order. A root that is given must exist: a misspelt path is not silently passed over."""
        folders = []
        if self.root is not None:
            try:
                folders.append(search_paths.find(self.root, "root"))
            except Absent as absent:
                raise DataError(str(absent)) from None
        shared = search_paths.shared()
        if shared is not None:
            folders.append(shared / self.folder)
        return [*folders, search_paths.cache() / self.folder]

    def _find(self, name: str, folders: list[Path]) -> Path:
        """The file of this name, compressed or not, in the first folder that has it; else downloaded."""
        for folder in folders:
            for spelling in (f"{name}.gz", name, name.replace("-idx", ".idx")):
                if (folder / spelling).is_file():
                    return folder / spelling
        try:
            return fetch(f"{name}.gz", self.mirrors, folders[-1], self._content)
        except Absent as failure:
            raise Absent(
                f"{self.title}: {name}.gz is in none of {', '.join(map(str, folders))}, and {failure}. Put the four "
                f"files into a folder and give it as root, or set UNIDIFF_DATA to a folder that holds "
                f"{self.folder}/, or allow a stand-in with fallback: digits."
            ) from failure

    def _content(self, path: Path) -> bytes:
        """The decompressed content of a file whose checksums are right; raises DataError otherwise."""
        packed = path.read_bytes()
        known = path.name.removesuffix(".gz").replace(".idx", "-idx")
        gz_md5 = self.gz_md5.get(known) if path.suffix == ".gz" else None
        content_md5 = self.content_md5.get(known)
        if gz_md5 is not None and _md5(packed) != gz_md5:
            raise DataError(f"{path} has the md5 {_md5(packed)}; {self.title} has {gz_md5}. {REMEDY}")
        try:
            content = unpack(path, packed)
        except DataError as error:
            expected = f" The content of the right file has the md5 {content_md5}." if content_md5 else ""
            raise DataError(f"{error}{expected} {REMEDY}") from error
        if content_md5 is not None and _md5(content) != content_md5:
            raise DataError(
                f"{path} has content of md5 {_md5(content)}; {self.title} has {content_md5}. The file is damaged, cut "
                f"short or another one. {REMEDY}"
            )
        return content


@renamed(offline="fallback")
@dataclass(frozen=True)
class MNIST(_IDXImages):
    """MNIST (LeCun et al., 1998): handwritten digits, 60,000 images to train on and 10,000 to test.

    The four IDX files (compressed or not) are looked for in `root`, then in `$UNIDIFF_DATA/mnist`, then in the user's
    cache, and else downloaded once into that cache, unless the environment variable UNIDIFF_OFFLINE is 1. The md5 of
    every file's decompressed content is verified. `checksum` is that of the images' file.

    Args:
        size: Height and width in pixels, at least 8; other than 28 by bilinear interpolation with antialiasing
            (Higham, Higham & Grindrod use 32).
        root: Folder that holds the files. If relative, it is looked up as given, then under $UNIDIFF_DATA.
        fallback: "digits" lets scikit-learn's digits stand in when the files cannot be had; the source says so in
            `stand_in`. None: that is an error. A damaged file is an error in both cases.
    """

    title: ClassVar[str] = "MNIST"
    folder: ClassVar[str] = "mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    content_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }


@renamed(offline="fallback")
@dataclass(frozen=True)
class FashionMNIST(_IDXImages):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017): ten kinds of clothing in MNIST's own format.

    Found, downloaded and resized as `MNIST` is; the folder's name is `fashion_mnist`. The published md5 sums are those
    of the .gz files and are verified where a file is compressed; the headers always are.

    Args:
        size: Height and width in pixels, at least 8.
        root: Folder that holds the files. If relative, it is looked up as given, then under $UNIDIFF_DATA.
        fallback: "digits" lets scikit-learn's digits stand in when the files cannot be had, or None.
    """

    title: ClassVar[str] = "Fashion-MNIST"
    folder: ClassVar[str] = "fashion_mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    class_names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    gz_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
