"""A folder of images of any size: decoded on demand, by a few threads ahead of the training."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset, require_split, scaled, stacked
from unidiff.data.digits import fallback_digits, require_fallback
from unidiff.data.image import decode
from unidiff.data.listing import list_split
from unidiff.errors import DataError, require, require_whole
from unidiff.files import digest_of
from unidiff.renamed import renamed
from unidiff.search_paths import Absent, find

__all__ = ["ColourSquares", "FolderOfImages", "ImageFiles", "ImageFolder", "file_status"]

THREADS = 4
PENDING = 512  # images decoded ahead of time, at most


class ColourSquares(Dataset):
    """Colour images of one size, from files that are published somewhere.

    Args:
        root: Where the files are.
        size: Height and width in pixels, at least 8.
    """

    root: str  # fields of the subclasses
    size: int

    features: ClassVar[str] = "photos"

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return (3, self.size, self.size)

    def find_root(self, place: str) -> Path:
        """Where the files are; an error says from which place to get them."""
        try:
            return find(self.root, "root")
        except Absent as absent:
            raise Absent(f"{absent} {place}") from None


class FolderOfImages(Dataset):
    """The images under a folder, square, grey or in colour, perhaps with the mirror image of each.

    Args:
        root: The folder.
        size: Height and width in pixels, at least 8.
        channels: 1 or 3.
        flip: Add the mirror image of each.
    """

    root: str  # fields of the subclasses
    size: int
    channels: int
    flip: bool

    def __post_init__(self) -> None:
        require_whole("size", self.size, 8, 8192)
        require(self.channels in (1, 3), "channels", self.channels, "1 (grey) or 3 (colour)")
        require(isinstance(self.flip, bool), "flip", self.flip, "true or false")

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, size, size)."""
        return (self.channels, self.size, self.size)

    @property
    def features(self) -> str:
        """Those of photographs, if the images have colours."""
        return "photos" if self.channels == 3 else ""

    def find_root(self) -> Path:
        """Where the folder is."""
        root = find(self.root, "root")
        if not os.path.isdir(root):
            raise DataError(f"root: {root} is a file; it must be the folder of the images.")
        return root


@renamed(offline="fallback")
@dataclass(frozen=True)
class ImageFolder(FolderOfImages):
    """The images under a folder, short side resized to `size` (antialiased), then the centre cut out.

    Splits: if `root` holds `train/` and `test/`, these, or without `test/` the `val/`; `training`, `testing`, `valid`
    and `validation`, in any case, are read likewise. Otherwise, also with `train/` alone, every tenth file in the
    sorted order of relative paths is the test split, the others the train split.

    Labels: if every image lies in a subfolder, the subfolder's name is its class, numbered in sorted order.

    Links are followed, and each file is listed once however many links lead to it. A warning lists what is left out:
    files without the extension of a format that Pillow reads, broken links, empty files, pipes and devices. Names that
    begin with a dot are ignored. Transparent pixels become white. An EXIF orientation is applied. 16-bit grey is
    reduced to 8 bits. The checksum is the SHA-256 of the sorted relative paths and file sizes, not of the content,
    which is read only on demand.

    Args:
        root: The folder. If relative, it may be under $UNIDIFF_DATA.
        size: Height and width in pixels, at least 8.
        channels: 1 for grey, 3 for colour; images are converted.
        flip: Add the mirror image of each, left to right: N images become 2N samples, and sample N + i is the mirror
            image of sample i. So a batch stays a function of its indices, which random flips would break.
        fallback: "digits" uses scikit-learn's digits (never mirrored) instead if `root` does not exist, or None.
    """

    root: str
    size: int = 32
    channels: int = 3
    flip: bool = False
    fallback: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fallback(self.fallback)

    def open(self, split: str = "train") -> OpenDataset:
        """List the split's files, which are decoded when a batch needs them; see `Dataset.open`."""
        require_split(split)
        try:
            root = self.find_root()
        except Absent:
            if self.fallback is None:
                raise
            name, why = f"The image folder {self.root}", "the folder does not exist"
            return fallback_digits(name, why, self.size, self.channels, split)
        listing, files, classes = list_split(root, split)
        listing.warn()
        top = listing.top
        checksum = digest_of(os.fsencode(f"{file} {file_status(top / file).st_size}\n") for file in files)
        labels = torch.tensor([classes.index(file.split("/")[0]) for file in files]) if classes else None
        if labels is not None and self.flip:
            labels = labels.repeat(2)
        decode(top / files[0], self.size, self.channels)  # a folder of no images is reported before training
        return ImageFiles(
            f"{root.name} {split}",
            self.shape,
            checksum,
            labels=labels,
            class_names=tuple(classes) or None,
            files=[top / file for file in files],
            flip=self.flip,
        )


@dataclass(repr=False, eq=False, kw_only=True)
class ImageFiles(OpenDataset):
    """Decodes images when a batch needs them, or ahead of it in threads after `prefetch`."""

    files: list[Path]
    flip: bool = False
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)  # created with the first image
    _pending: dict[int, Future[Tensor]] = field(default_factory=dict, init=False)  # by file number, oldest hint first

    def __len__(self) -> int:
        return len(self.files) * (2 if self.flip else 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_pending": {}}  # threads are not copied

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        samples = [self._locate(index) for index in indices.tolist()]
        # All are started before the first is waited for, so the threads share what was not prefetched.
        pending = self._pending
        started = {file: pending.pop(file) if file in pending else self._start(file) for file in dict(samples)}
        images = {file: future.result() for file, future in started.items()}
        x = stacked([images[file] for file, _ in samples], device)
        if self.flip:
            mirrored = stacked([torch.tensor(mirrored) for _, mirrored in samples], device)
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return scaled(x)

    @property
    def fingerprint(self) -> str:
        """The checksum, which does not cover the content, with the times at which the files last changed."""
        times = "\n".join(str(file_status(path).st_mtime_ns) for path in self.files)
        return f"{self.checksum} {digest_of([times.encode()])}"

    def prefetch(self, indices: Tensor) -> None:
        """Start decoding these samples, (B,) integers. Beyond 512 images, the oldest hints are forgotten."""
        for index in indices.tolist():
            file, _ = self._locate(index)
            if file not in self._pending:
                self._pending[file] = self._start(file)
        while len(self._pending) > PENDING:
            self._pending.pop(next(iter(self._pending))).cancel()

    def _locate(self, index: int) -> tuple[int, bool]:
        """The number of a sample's file, and whether it is mirrored."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {self.name}, which has {len(self)}")
        mirrored, file = divmod(index % len(self), len(self.files))
        return file, bool(mirrored)

    def _start(self, file: int) -> Future[Tensor]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="unidiff-images")
        channels, size, _ = self.shape
        return self._pool.submit(decode, self.files[file], size, channels)


def file_status(path: Path) -> os.stat_result:
    """Size and times of an image; a DataError if it has been taken away since it was listed."""
    try:
        return os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Restore it, or start again without it.") from error
