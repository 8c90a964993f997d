"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels in ten classes, from disk or downloaded once."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from unidiff import search_paths
from unidiff.data.base import TensorSource, require_split
from unidiff.data.digits import GreySquares, fallback_digits, require_fallback
from unidiff.data.image import resize
from unidiff.errors import DataError
from unidiff.files import whole_files
from unidiff.reading import Unreadable, read_bytes
from unidiff.renamed import renamed
from unidiff.search_paths import Absent

__all__ = ["MNIST", "FashionMNIST"]

_REMEDY = "Delete it, so that it is downloaded again, or change root."
_GZIP = 1 << 20  # bytes by which gzip may enlarge a file, and more
_UINT8 = 0x08  # IDX's type byte of unsigned bytes, the only type of these files


@dataclass(frozen=True)
class _IDXImages(GreySquares):
    """Four IDX files, 28x28 grey images, ten classes.

    Args:
        root: Folder that holds the files. If relative, it may be under $UNIDIFF_DATA.
    """

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
        super().__post_init__()
        require_fallback(self.fallback)

    def open(self, split: str = "train") -> TensorSource:
        """Find or download the two files of the split (60,000 or 10,000 images), verify and read them."""
        require_split(split)
        prefix = "train" if split == "train" else "t10k"
        folders = self._folders()
        try:
            image_file = self._find(f"{prefix}-images-idx3-ubyte", folders)
            label_file = self._find(f"{prefix}-labels-idx1-ubyte", folders)
        except Absent as absent:
            if self.fallback is None:
                raise
            return fallback_digits(self.title, str(absent.__cause__), self.size, 1, split)
        count = self.counts[split]
        content = self._content(image_file)
        pixels = _parse(image_file, content, (count, 28, 28))
        labels = _parse(label_file, self._content(label_file), (count,))
        if labels.max() > 9:
            raise DataError(f"{label_file} holds the label {labels.max()}; labels are 0 to 9. {_REMEDY}")
        images = resize(torch.from_numpy(pixels.copy()).unsqueeze(1), self.size)
        classes = torch.from_numpy(labels.astype(np.int64))
        return TensorSource(images, f"{self.title} {split}", f"md5:{_md5(content)}", None, classes, self.class_names)

    def _folders(self) -> list[Path]:
        """Where to look, in order. `root` must exist: a misspelt path is not ignored."""
        folders = []
        if self.root is not None:
            try:
                folders.append(search_paths.find(self.root, "root"))
            except Absent as absent:
                raise DataError(str(absent)) from None
            if not os.path.isdir(folders[0]):
                raise DataError(f"root: {folders[0]} is a file; it must be the folder of the files.")
        shared = search_paths.shared()
        if shared is not None:
            folders.append(shared / self.folder)
        return [*folders, search_paths.cache() / self.folder]

    def _find(self, name: str, folders: list[Path]) -> Path:
        """The file of this name, compressed or not, in the first folder that has it; else downloaded."""
        for folder in folders:
            for spelling in (f"{name}.gz", name, name.replace("-idx", ".idx")):
                if os.path.isfile(folder / spelling):
                    return folder / spelling
        try:
            return self._fetch(f"{name}.gz", folders[-1])
        except Absent as failure:
            raise Absent(
                f"{self.title}: {name}.gz is in none of {', '.join(map(str, folders))}, and {failure}. Put the four "
                f"files into a folder and set root to it, or set UNIDIFF_DATA to a folder that holds {self.folder}/, "
                f"or train on scikit-learn's digits instead with fallback: digits."
            ) from failure

    def _fetch(self, name: str, folder: Path) -> Path:
        """Download a file from the first mirror that has the right one; it appears in the folder complete and checked.

        Raises Absent if there is none; the message names each mirror and what went wrong.
        """
        search_paths.require_online()
        failures = []
        for mirror in self.mirrors:
            try:
                with whole_files(folder, name) as temporary:
                    _download(mirror + name, temporary / name, self._size(name) + _GZIP)
                    self._content(temporary / name)
                return folder / name
            except OSError as error:  # of the disk or the network: the exceptions of requests are OSErrors
                failures.append(f"{mirror}: {error.strerror or type(error).__name__}")
            except DataError as error:
                failures.append(f"{mirror}: {error}")
        raise Absent(f"downloading {name} failed ({'; '.join(failures)})")

    def _size(self, name: str) -> int:
        """Bytes of the content of a file."""
        axes, count = (3, 784) if "images" in name else (1, 1)
        return 4 + 4 * axes + count * self.counts["test" if name.startswith("t10k") else "train"]

    def _content(self, path: Path) -> bytes:
        """The decompressed content of a file whose checksums are right; raises DataError otherwise."""
        name = path.name.removesuffix(".gz").replace(".idx", "-idx")
        most = self._size(name)
        try:
            packed = read_bytes(path, most + _GZIP)
        except Unreadable as error:
            raise DataError(f"{path}: {error.problem}. {_REMEDY}") from error
        gz_md5 = self.gz_md5.get(name) if path.suffix == ".gz" else None
        content_md5 = self.content_md5.get(name)
        if gz_md5 is not None and _md5(packed) != gz_md5:
            raise DataError(f"{path} has the md5 {_md5(packed)}; {self.title} has {gz_md5}. {_REMEDY}")
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(most + 1) if path.suffix == ".gz" else packed
        except (OSError, EOFError, zlib.error) as error:
            expected = f" The content of the right file has the md5 {content_md5}." if content_md5 else ""
            raise DataError(
                f"{path} cannot be decompressed ({error}): it is cut short or damaged. Its {len(packed)} compressed "
                f"bytes have the md5 {_md5(packed)}.{expected} {_REMEDY}"
            ) from error
        if len(content) > most:
            raise DataError(f"{path} holds more than the {most} bytes of {name}: it is another file. {_REMEDY}")
        if content_md5 is not None and _md5(content) != content_md5:
            raise DataError(
                f"{path} has content of md5 {_md5(content)}; {self.title} has {content_md5}. The file is damaged, cut "
                f"short or another one. {_REMEDY}"
            )
        return content


class _Limited(io.FileIO):
    """A file to write to, with a limit to its size."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path, "wb")
        self._left = limit

    def write(self, content: Any) -> int:
        self._left -= len(content)
        if self._left < 0:
            raise OSError(errno.EFBIG, "more comes than the right file has")
        return super().write(content)


def _download(url: str, target: Path, limit: int) -> None:
    """Write what is at `url`, at most `limit` bytes, to the file `target`, with a progress bar on a terminal."""
    import pooch

    progress = sys.stderr.isatty() and find_spec("tqdm") is not None
    # Seconds to connect, seconds between bytes: a missing network is noticed soon, a slow one is waited for.
    with _Limited(target, limit) as output:
        pooch.HTTPDownloader(progressbar=progress, timeout=(3, 30))(url, output, None)


def _parse(path: Path, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The values of an IDX file, of this shape, uint8, read-only; raises DataError if its header is another.

    The format: two zero bytes, a type byte, the number of axes, the sizes as big-endian uint32, then the values.
    """
    start = 4 + 4 * len(shape)
    if len(content) < start:
        raise DataError(f"{path} has {len(content)} bytes, too few for the header of an IDX file. {_REMEDY}")
    magic = (0, 0, _UINT8, len(shape))
    if tuple(content[:4]) != magic:
        raise DataError(
            f"{path} begins with the bytes {list(content[:4])}; an IDX file of {len(shape)} axes of unsigned bytes "
            f"begins with {list(magic)}. {_REMEDY}"
        )
    sizes = struct.unpack(f">{len(shape)}I", content[4:start])
    if sizes != shape:
        raise DataError(f"{path} has a header for shape {sizes}; expected {shape}. {_REMEDY}")
    if len(content) - start != np.prod(shape):
        raise DataError(f"{path} has {len(content) - start} values; its header promises {np.prod(shape)}. {_REMEDY}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@renamed(offline="fallback")
@dataclass(frozen=True)
class MNIST(_IDXImages):
    """MNIST (LeCun et al., 1998): handwritten digits, 60,000 images to train on and 10,000 to test.

    The four IDX files (compressed or not) are searched for in `root`, in `$UNIDIFF_DATA/mnist` and in the user's cache,
    and otherwise downloaded once into that cache, unless the environment variable UNIDIFF_OFFLINE is 1. The md5 of
    every file's decompressed content is verified. `checksum` is that of the images' file.

    Args:
        size: Height and width in pixels, at least 8; other than 28 by bilinear interpolation with antialiasing
            (Higham, Higham & Grindrod use 32).
        fallback: "digits" uses scikit-learn's digits instead when the files are unavailable, which `stand_in` then
            reports. None: that is an error. A damaged file is an error in both cases.
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

    features: ClassVar[str] = "mnist"


@renamed(offline="fallback")
@dataclass(frozen=True)
class FashionMNIST(_IDXImages):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017): ten classes of clothing in MNIST's own format.

    Searched for, downloaded and resized like `MNIST`, in a folder `fashion_mnist`. The published md5 sums are those of
    the .gz files and are verified where a file is compressed; the headers always are.

    Args:
        fallback: "digits" uses scikit-learn's digits instead when the files are unavailable, or None.
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
