"""A folder of images of any size: decoded when they are needed, by a few threads ahead of the training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unidiff.data.base import Dataset, OpenDataset, require_split, require_stand_in
from unidiff.data.digits import stand_in
from unidiff.data.picture import decode
from unidiff.errors import DataError, require, require_whole
from unidiff.renamed import renamed
from unidiff.search_paths import Absent, find

__all__ = ["ImageFolder"]

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
THREADS = 4
PENDING = 512  # images decoded or being decoded ahead of time, at most


@renamed(offline="fallback")
@dataclass(frozen=True)
class ImageFolder(Dataset):
    """The images under a folder, short side resized to `size` (antialiased), then the centre cut out.

    Splits: if `root` holds `train/` and `test/`, these. Otherwise (also with `train/` alone) every tenth file in the
    sorted order of relative paths is the test split, the others the train split.

    Labels: if every image lies in a subfolder, the subfolder's name is its class, numbered in sorted order.

    Files whose name begins with a dot or does not end like an image's are passed over. Transparent pixels are laid on
    white. An EXIF orientation is obeyed. 16-bit grey is reduced to 8 bits. The checksum is the SHA-256 of the sorted
    relative paths and file sizes, not of the content, which is not read before it is needed.

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
        top, files, classes = _split(root, split)
        total = hashlib.sha256()
        for file in files:
            total.update(f"{file} {(top / file).stat().st_size}\n".encode())
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
            f"sha256:{total.hexdigest()}",
            labels,
            tuple(classes) or None,
        )


class _FolderSource(OpenDataset):
    """Decodes images when they are asked for, and in threads before that if it is told what comes next."""

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
        self._decode: Callable[[Path], Tensor] = lambda path: decode(path, size, channels)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="unidiff-images")  # starts no thread yet
        self._pending: dict[int, Future[Tensor]] = {}  # file number -> its image, oldest hint first

    def __len__(self) -> int:
        return self._length

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
        return f"{self.checksum} sha256:{hashlib.sha256(times.encode()).hexdigest()}"

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
        return self._pool.submit(self._decode, self._files[file])


def _split(root: Path, split: str) -> tuple[Path, list[str], list[str]]:
    """The folder that the split's paths are relative to, those paths, sorted, and the names of the classes or []."""
    train, test = root / "train", root / "test"
    if test.is_dir() and not train.is_dir():
        raise DataError(f"root: {root} has a folder test/ but no train/. Add train/, or give {test} as root.")
    if test.is_dir():
        # Both are listed either way: a class has one number in both splits, even where one split lacks it.
        listed = {"train": _images(train), "test": _images(test)}
        return root / split, listed[split], _classes(listed["train"] + listed["test"])
    top = train if train.is_dir() else root
    files = _images(top)
    held_out = files[9::10]
    if split == "train":
        held = set(held_out)
        return top, [file for file in files if file not in held], _classes(files)
    if not held_out:
        raise DataError(
            f"root: {top} has {len(files)} images; every tenth is held out for the test split, so at least 10 are "
            f"needed. Add images, or sort them into train/ and test/."
        )
    return top, held_out, _classes(files)


def _images(top: Path) -> list[str]:
    """Paths of the images under a folder, relative to it, with slashes, sorted. Raises DataError if there is none."""
    found = []
    for folder, subfolders, names in os.walk(top, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:
                found.append((Path(folder) / name).relative_to(top).as_posix())
    if not found:
        raise DataError(
            f"root: {top} holds no image (no file ending in {', '.join(sorted(EXTENSIONS))}). Give the folder that "
            f"holds the images."
        )
    return sorted(found)


def _classes(files: list[str]) -> list[str]:
    """Names of the first subfolders, sorted; [] if an image lies in none, for then it would have no class."""
    return sorted({file.split("/")[0] for file in files}) if all("/" in file for file in files) else []
