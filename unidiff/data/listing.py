"""Which files of a folder are images, and which split and class each belongs to."""

from __future__ import annotations

import math
import os
import re
import stat
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from unidiff.data.image import formats
from unidiff.errors import DataError
from unidiff.text import count_of

__all__ = ["Listing", "list_images", "list_split"]

# Names of the folders of a split, in any case. The held-out split is test, or else validation.
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation"),
}
_STRANGE = 2_000_000  # files that are no images; more belong to a whole disk, not to a folder of images
_PATIENCE = 5.0  # seconds of listing, after which the user hears of it
# What folders of splits are called elsewhere: train2017, testA, val-set, dev_images.
_SPLIT_LIKE = re.compile(
    r"(images?[-_]?)?((?P<train>train|training|trn)|test|testing|tst|val|valid|validation|dev|eval|holdout)"
    r"[-_]?(set|images?|data|[a-d]|\d+)?",
    re.IGNORECASE,
)
_NOT_IMAGES = "without the extension of a readable image format"


@dataclass
class Listing:
    """The images of a folder.

    Attributes:
        top: The folder.
        files: Paths relative to it, with slashes, sorted.
        targets: The same files by identity: the path with all links resolved, or the inode if it has several names.
        left_out: Names that were not listed, relative to `top`, by reason.
    """

    top: Path
    files: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def require_images(self) -> Listing:
        """Itself; raises a DataError if it is empty."""
        if not self.files:
            instead = f"; it contains {'; '.join(self._reasons())}" if self.left_out else ""
            raise DataError(f"root: {self.top} contains no images{instead}. Set root to the folder of the images.")
        return self

    def warn(self) -> None:
        """Warn of what was left out, if anything."""
        if self.left_out:
            warnings.warn(f"Left out of {self.top}: {'; '.join(self._reasons())}.", stacklevel=4)

    def leave_out(self, reason: str, name: str) -> None:
        """Record a file or folder that is not listed."""
        self.left_out.setdefault(reason, []).append(name)

    def _reasons(self) -> list[str]:
        """Each reason, with the number of files and a few names, or the extensions where these are the reason."""
        reasons = []
        for reason, names in self.left_out.items():
            if reason == _NOT_IMAGES:
                counts = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in names)
                examples = ", ".join(f"{count} x {extension}" for extension, count in counts.most_common(5))
            else:
                examples = ", ".join(sorted(names)[:3])
            more = ", ..." if examples.count(",") + 1 < len(names) else ""
            reasons.append(f"{len(names)} {reason} ({examples}{more})")
        return reasons


def _is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in formats()


def list_split(root: Path, split: str) -> tuple[Listing, list[str], list[str]]:
    """The listing of one split of a folder, the paths that belong to the split, and the names of the classes or [].

    Raises a DataError if there is no image, too few for a test split, or the layout is ambiguous.
    """
    folders = _split_folders(root)
    if "train" not in folders:
        if folders:
            other = next(iter(folders.values()))
            raise DataError(f"root: {root} has a folder {other.name}/ but no train/. Add train/, or set root: {other}.")
        listing = list_images(root).require_images()
        _require_no_splits(listing)
        return listing, _every_tenth(listing, split), _classes(listing.files)
    beside = _beside(root, folders)
    train = list_images(folders["train"]).require_images()
    held_out = folders.get("test", folders.get("validation"))
    if held_out is None:
        train.left_out.update(beside)
        return train, _every_tenth(train, split), _classes(train.files)
    # Both are listed in either case: a class has one number in both splits, even if one split lacks it.
    test = list_images(held_out).require_images()
    if shared := train.targets.keys() & test.targets.keys():
        example = min(test.targets[target] for target in shared)
        problem = f"{train.top.name}/ and {test.top.name}/ share {count_of(len(shared), 'file')}, such as {example}"
        raise DataError(f"root: {root}: {problem}. No image may be in both splits.")
    listing = train if split == "train" else test
    listing.left_out.update(beside)
    return listing, listing.files, _classes(train.files + test.files)


def list_images(top: Path) -> Listing:
    """The images under a folder, each once: links are followed, but never to what is listed already.

    Real folders come before links, so that what can be reached both ways is listed under its real path. Names that
    begin with a dot are ignored; everything else that is left out is recorded. Raises a DataError if a folder or an
    image cannot be read for lack of permission.
    """
    listing = Listing(top)
    around = {os.path.realpath(top), *map(str, Path(os.path.realpath(top)).parents)}
    visited: set[str] = set()
    folders, linked = [str(top)], list[str]()
    linked_files: list[os.DirEntry[str]] = []
    deadline = time.monotonic() + _PATIENCE
    while folders or linked:
        folder = folders.pop() if folders else linked.pop(0)
        real = os.path.realpath(folder)
        if real in visited or (real in around and folder != str(top)):
            listing.leave_out("links to a folder that is listed or holds this one", os.path.relpath(folder, top))
            continue
        visited.add(real)
        if time.monotonic() > deadline:
            others = len(listing.left_out.get(_NOT_IMAGES, []))
            found = f"{len(listing.files):,} images and {others:,} other files so far"
            warnings.warn(f"root: {top} is large: {found}. If it is not the one that is meant, stop.", stacklevel=4)
            deadline = math.inf
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry):
                (linked if entry.is_symlink() else folders).append(entry.path)
            elif entry.is_symlink():
                linked_files.append(entry)
            else:
                _add(listing, entry, os.path.join(real, entry.name))
    for entry in sorted(linked_files, key=lambda entry: entry.path):
        _add(listing, entry, os.path.realpath(entry.path))
    listing.files.sort()
    return listing


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"root: {folder} cannot be read ({error.strerror}). Correct the permissions.") from error


def _add(listing: Listing, entry: os.DirEntry[str], target: str) -> None:
    """List a file if it is an image, or record why not; `target` is its path with all links resolved."""
    name = Path(os.path.relpath(entry.path, listing.top)).as_posix()
    if not _is_image_name(name):
        others = listing.left_out.get(_NOT_IMAGES, [])
        if len(others) > max(_STRANGE, 10 * len(listing.files)):
            problem = f"{len(others):,} files without the extension of an image beside {len(listing.files):,} images"
            raise DataError(f"root: {listing.top} has more than {problem}. Set root to the folder of the images.")
        return listing.leave_out(_NOT_IMAGES, name)
    try:
        status = entry.stat()
    except OSError:
        return listing.leave_out("broken links", name)
    if not stat.S_ISREG(status.st_mode):
        return listing.leave_out("that are not regular files, such as pipes and devices", name)
    if status.st_size == 0:
        return listing.leave_out("empty files", name)
    if not os.access(entry.path, os.R_OK):
        raise DataError(f"root: no permission to read {entry.path}. Correct the permissions, or move it away.")
    if status.st_nlink > 1:  # hard links: one file of several real paths
        target = f"{status.st_dev}:{status.st_ino}"
    if target in listing.targets:
        return listing.leave_out("links to an image that is listed", name)
    listing.targets[target] = name
    listing.files.append(name)
    return None


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that exists."""
    folders: dict[str, Path] = {}
    for entry in _entries(str(root)):
        split = next((split for split, names in SPLITS.items() if entry.name.lower() in names), None)
        if split is None or not os.path.isdir(entry):
            continue
        if split in folders:
            raise DataError(f"root: {root} has both {folders[split].name}/ and {entry.name}/. Keep one of them.")
        folders[split] = Path(entry.path)
    return folders


def _beside(root: Path, folders: dict[str, Path]) -> dict[str, list[str]]:
    """What lies beside the folders of the splits and is left out, by reason.

    Raises a DataError if train/ is the only split among folders of images: it may be the name of a class.
    """
    unused: dict[str, list[str]] = {}
    for entry in _entries(str(root)):
        path = Path(entry.path)
        if entry.name.startswith(".") or path in (folders["train"], folders.get("test")):
            continue
        if path == folders.get("validation"):
            if "test" in folders:
                unused["split that is not used, as there is a test split"] = [f"{entry.name}/"]
        elif os.path.isdir(entry) and list_images(path).files:
            if len(folders) == 1:
                train = folders["train"]
                problem = f"{train.name}/ may be a split or a class, because {entry.name}/ contains images too"
                raise DataError(
                    f"root: {root}: {problem}. Set root: {train}, or rename {train.name}/ if it is a class."
                )
            unused.setdefault("folders of images that belong to no split", []).append(f"{entry.name}/")
        elif _is_image_name(entry.name):
            unused.setdefault("images that belong to no split", []).append(entry.name)
    return unused


def _require_no_splits(listing: Listing) -> None:
    """Raise a DataError if folders have the names of a train split and of another one, such as train2017/, trainA/."""
    parts = [file.split("/")[:-1] for file in listing.files]
    for depth in (0, 1):
        names = sorted({folders[depth] for folders in parts if len(folders) > depth})
        kinds = {name: match for name in names if (match := _SPLIT_LIKE.fullmatch(name))}
        first, *others = sorted(kinds, key=lambda name: kinds[name]["train"] is None) or [""]
        if others and kinds[first]["train"] and not all(kinds[name]["train"] for name in others):
            problem = f"{first}/ and {others[-1]}/ look like splits of the data, and would be read as classes"
            raise DataError(
                f"root: {listing.top}: {problem}. Rename them train/ and test/, or set root to one of them."
            )


def _every_tenth(listing: Listing, split: str) -> list[str]:
    """Every tenth file for the test split, the others for the train split."""
    files = [file for number, file in enumerate(listing.files) if (number % 10 == 9) == (split == "test")]
    if not files:
        problem = f"root: {listing.top} has {count_of(len(listing.files), 'image')}; every tenth is for testing"
        raise DataError(f"{problem}, so at least 10 are needed. Add images, or sort them into train/ and test/.")
    return files


def _classes(files: list[str]) -> list[str]:
    """Names of the first subfolders, sorted; [] if an image lies in none, for then it would have no class."""
    return sorted({file.split("/")[0] for file in files}) if all("/" in file for file in files) else []
