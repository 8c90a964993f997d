"""A folder of images of any size: decoded when they are needed, by a few threads ahead of the training."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset, require_split, require_stand_in
from unidiff.data.digits import stand_in
from unidiff.data.image import decode
from unidiff.data.listing import list_split
from unidiff.errors import DataError, require, require_whole
from unidiff.files import digest_of
from unidiff.renamed import renamed
from unidiff.search_paths import Absent, find

__all__ = ["ImageFolder"]

THREADS = 4
PENDING = 512  # images decoded or being decoded ahead of time, at most


@renamed(offline="fallback")
@dataclass(frozen=True)
class ImageFolder(Dataset):
    """The images under a folder, short side resized to `size` (antialiased), then the centre cut out.

    Splits: if `root` holds `train/` and `test/`, these, or with no `test/` the `val/`; other usual names (`training`,
    `testing`, `valid`, `validation`, in any case) do as well. Otherwise, also with `train/` alone, every tenth file in
    the sorted order of relative paths is the test split, the others the train split.

    Labels: if every image lies in a subfolder, the subfolder's name is its class, numbered in sorted order.

    Links are followed, and each file is listed once however many ways lead to it. A warning says what is left out:
    files without the ending of a format that Pillow reads, broken links, empty files, pipes and devices. Names that
    begin with a dot are ignored. Transparent pixels are laid on white. An EXIF orientation is obeyed. 16-bit grey is
    reduced to 8 bits. The checksum is the SHA-256 of the sorted relative paths and file sizes, not of the content,
    which is not read before it is needed.

    Args:
        root: The folder. If relative, it is looked up as given, then under $UNIDIFF_DATA.
        size: Height and width in pixels, at least 8.
        channels: 1 for grey, 3 for colour; images of the other kind are converted.
        flip: Whether each image also comes mirrored left to right: N images become 2N samples, of which sample N + i
            is the mirror of sample i. So a batch stays a function of its indices, which random flips would break.
        fallback: "digits" lets scikit-learn's digits (never mirrored) stand in when `root` does not exist, or None.
    """

    root: str
    size: int = 32
    channels: int = 3
    flip: bool = False
    fallback: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", os.fspath(self.root))  # a Path is welcome; the repr is a recipe: plain text
        require_whole("size", self.size, 8, 8192)
        require(self.channels in (1, 3), "channels", self.channels, "1 (grey) or 3 (colour)")
        require(isinstance(self.flip, bool), "flip", self.flip, "true or false")
        require_stand_in(self.fallback)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, size, size)."""
        return (self.channels, self.size, self.size)

    def open(self, split: str = "train") -> OpenDataset:
        """List the split's files; they are decoded when a batch needs them.

        Raises:
            DataError: If the folder does not exist, holds no image or too few for a test split, or the first is broken.
        """
        require_split(split)
        try:
            root = find(self.root, "root")
        except Absent:
            if self.fallback is None:
                raise
            why = "the folder does not exist"
            return stand_in(f"The image folder {self.root}", why, self.size, self.channels, split)
        if not root.is_dir():
            raise DataError(f"root: {root} is a file; give the folder that holds the images.")
        listing, files, classes = list_split(root, split)
        listing.warn()
        top = listing.top
        checksum = digest_of(os.fsencode(f"{file} {(top / file).stat().st_size}\n") for file in files)
        labels = torch.tensor([classes.index(file.split("/")[0]) for file in files]) if classes else None
        if labels is not None and self.flip:
            labels = labels.repeat(2)
        decode(top / files[0], self.size, self.channels)  # a folder of no images is better known now than in training
        return _FolderSource(
            [top / file for file in files],
            self.size,
            self.channels,
            self.flip,
            f"{root.name} {split}",
            checksum,
            labels,
            tuple(classes) or None,
        )


class _FolderSource(OpenDataset):
    """Decodes images when a batch needs them, or ahead of it in threads after `prefetch`."""

    def __init__(
        self,
        files: list[Path],
        size: int,
        channels: int,
        flip: bool,
        name: str,
        checksum: str,
        labels: Tensor | None,
        class_names: tuple[str, ...] | None,
    ) -> None:
        super().__init__(name, (channels, size, size), checksum, None, labels, class_names)
        self._files = files
        self._length = len(files) * (2 if flip else 1)
        self._decode = partial(decode, size=size, channels=channels)
        self._pool: ThreadPoolExecutor | None = None  # made with the first image
        self._pending: dict[int, Future[Tensor]] = {}  # file number -> its image, oldest hint first

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_pending": {}}  # threads stay where they are

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Take samples by index: (B,) integers in, (B, C, size, size) float32 in [-1, 1] out."""
        wanted = [self._number(index) for index in indices.tolist()]
        files = dict.fromkeys(file for file, _ in wanted)
        # All are started before the first is waited for, so the threads share what was not prefetched.
        started = {file: self._take(file) for file in files}
        images = {file: future.result() for file, future in started.items()}
        stack = torch.stack([images[file].flip(-1) if mirrored else images[file] for file, mirrored in wanted])
        return stack.to(device).float().div_(127.5).sub_(1.0)

    @property
    def fingerprint(self) -> str:
        """The checksum, which reads no content, with the times at which the files last changed."""
        times = "\n".join(str(path.stat().st_mtime_ns) for path in self._files)
        return f"{self.checksum} {digest_of([times.encode()])}"

    def prefetch(self, indices: Tensor) -> None:
        """Start decoding these samples, (B,) integers. Beyond 512 images, the oldest hints are forgotten."""
        for index in indices.tolist():
            file, _ = self._number(index)
            if file not in self._pending:
                self._pending[file] = self._start(file)
        while len(self._pending) > PENDING:
            self._pending.pop(next(iter(self._pending))).cancel()

    def _number(self, index: int) -> tuple[int, bool]:
        """Which file a sample comes from, and whether mirrored."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {self.name}, which has {len(self)}")
        mirrored, file = divmod(index % len(self), len(self._files))
        return file, bool(mirrored)

    def _take(self, file: int) -> Future[Tensor]:
        return self._pending.pop(file) if file in self._pending else self._start(file)

    def _start(self, file: int) -> Future[Tensor]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="unidiff-images")
        return self._pool.submit(self._decode, self._files[file])
