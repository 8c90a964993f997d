"""A folder of images with a caption for each, in words of any kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unidiff.data.base import require_split
from unidiff.data.folder import FolderOfImages, ImageFiles, file_status
from unidiff.data.image import decode
from unidiff.data.listing import list_split
from unidiff.errors import DataError
from unidiff.files import digest_of
from unidiff.reading import Unreadable, read_bytes

__all__ = ["CaptionedFolder", "text_of", "texts_as_tensor"]

_TABLE, _END = "metadata.jsonl", -1
_LONGEST = 10_000  # letters of a caption


@dataclass(frozen=True)
class CaptionedFolder(FolderOfImages):
    """The images under a folder with a caption for each, for a model of text; resized and split as in `ImageFolder`.

    The caption of `photos/cat.png` is the text of `photos/cat.txt`, or the `text` of the line in `metadata.jsonl`, at
    the top of the split, whose `file_name` is its path from there: {"file_name": "cat.png", "text": "a red cat"}. Each
    image needs one. The checksum is that of paths, sizes of files and captions.

    Args:
        root: The folder. If relative, it may be under $UNIDIFF_DATA.
        size: Height and width in pixels, at least 8.
        channels: 1 for grey, 3 for colour; images are converted.
        flip: Add the mirror image of each, with the same caption.
    """

    root: str
    size: int = 32
    channels: int = 3
    flip: bool = False

    def open(self, split: str = "train") -> ImageFiles:
        """List the images of a split and read their captions; see `Dataset.open`."""
        require_split(split)
        root = self.find_root()
        listing, files, _ = list_split(root, split)
        for reason, names in [*listing.left_out.items()]:  # captions are no images
            listing.left_out[reason] = [name for name in names if not name.endswith((".txt", ".jsonl"))]
        listing.left_out = {reason: names for reason, names in listing.left_out.items() if names}
        listing.warn()
        table = _table(listing.top / _TABLE)
        captions = [_caption(listing.top, name, table) for name in files]
        decode(listing.top / files[0], self.size, self.channels)  # a folder of no images is reported before training
        lines = [f"{name} {file_status(listing.top / name).st_size} {text}\n" for name, text in zip(files, captions)]
        return _CaptionedFiles(
            f"{root.name} {split}",
            self.shape,
            digest_of(line.encode("utf-8", "surrogateescape") for line in lines),
            files=[listing.top / name for name in files],
            flip=self.flip,
            captions=texts_as_tensor(captions * (2 if self.flip else 1)),
        )


@dataclass(repr=False, eq=False, kw_only=True)
class _CaptionedFiles(ImageFiles):
    """Images with captions, (N, L), in place of labels."""

    captions: Tensor = field(repr=False)

    def examples(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
        """With the captions; see `OpenDataset.examples`."""
        return self.batch(indices, device), self.captions[indices.cpu()]


def texts_as_tensor(texts: Sequence[str]) -> Tensor:
    """Texts as the numbers of their letters in Unicode, (N, L) int64, padded with -1."""
    longest = max(1, *map(len, texts)) if texts else 1
    rows = [[*map(ord, text), *[_END] * (longest - len(text))] for text in texts]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)


def text_of(row: Tensor) -> str:
    """The text of a row of `texts_as_tensor`, (L,)."""
    return "".join(chr(number) for number in row.tolist() if number != _END)


def _table(path: Path) -> dict[str, str]:
    """Captions by file name; empty if there is no table."""
    if not path.is_file():
        return {}
    captions: dict[str, str] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            captions[str(entry["file_name"])] = _checked(entry["text"], f"{path}:{number}")
        except (ValueError, KeyError, TypeError) as error:
            example = '{"file_name": "cat.png", "text": "a red cat"}'
            raise DataError(f"{path}:{number}: a line must be such as {example}.") from error
    return captions


def _caption(top: Path, name: str, table: dict[str, str]) -> str:
    beside = (top / name).with_suffix(".txt")
    if beside.is_file():
        return _checked(_read(beside).strip(), str(beside))
    if name not in table:
        problem = f"{top / name} has no caption, neither in {beside.name} beside it nor in {top / _TABLE}"
        raise DataError(f"root: {problem}. Write one, or move the image away.")
    return table[name]


def _read(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except (Unreadable, OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "problem", None) or "it is not a text in UTF-8"
        raise DataError(f"{path}: {reason}. Correct the caption.") from error


def _checked(text: object, place: str) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise DataError(f"{place}: a caption must be a text of at most {_LONGEST:,} letters.")
    return text
