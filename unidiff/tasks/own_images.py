"""A first recipe for one's own folder of images: what is in the folder, and a small model of it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unidiff.data.folder import ImageFolder
from unidiff.data.image import open_image
from unidiff.data.listing import list_split
from unidiff.errors import DataError, RunError
from unidiff.recipe.yaml_tree import write_yaml
from unidiff.text import clean

__all__ = ["ImageSurvey", "own_recipe", "survey"]

_LOOKED_AT, _OPENED = 64, 2000  # images, spread over the folder, whose pixels and whose headers are read
_NAMED = 5  # unreadable images in a message
_GREY = 8  # the largest difference of red, green and blue of an image that is called grey, of 255
_SIZES = (8, 16, 32)  # that a CPU trains within an hour


@dataclass(frozen=True)
class ImageSurvey:
    """What is in a folder of images.

    Attributes:
        root: The folder.
        count: Number of images to train on.
        shortest: The short side of a typical image (the median), in pixels.
        grey: Whether no image has colours.
        classes: Names of the classes, if the images lie in a subfolder each.
        held_out: Number of images that are not trained on: those of the test split.
    """

    root: str
    count: int
    shortest: int
    grey: bool
    classes: tuple[str, ...]
    held_out: int = 0

    def text(self) -> str:
        """In a sentence."""
        names = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        where = f"{len(self.classes)} class{'es' * (len(self.classes) > 1)} ({names})" if self.classes else "no classes"
        kind = "grey" if self.grey else "colour"
        parts = f" ({self.count} to train on, {self.held_out} held out)" if self.held_out else ""
        images = f"{self.count + self.held_out} {kind} images{parts}"
        return f"{self.root}: {images}, {where}, the short side is typically {self.shortest} pixels"

    @property
    def size(self) -> int:
        """The size that images are resized to: the largest for a CPU that enlarges none."""
        return max((size for size in _SIZES if size <= self.shortest), default=_SIZES[0])


def survey(folder: str) -> ImageSurvey:
    """Look at a folder of images, as ImageFolder reads it.

    Raises:
        RunError: If it is not a folder.
        DataError: If it holds no images, some of them are not readable, or its splits are ambiguous.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        problem = "this is a file" if os.path.exists(root) else "no such folder"
        raise RunError(f"{folder}: {problem}. Name the folder of the images.")
    listing, files, classes = list_split(root, "train")
    held_out = 0
    with suppress(DataError):  # too few for a test split
        held_out = len(list_split(root, "test")[1])
    chosen = set(files[:: max(1, len(files) // _LOOKED_AT)])
    shortest, grey, broken = [], True, list[DataError]()
    for file in listing.files if len(listing.files) <= _OPENED else sorted(chosen):  # those held out, too
        try:
            with open_image(listing.top / file) as image:
                if file in chosen:
                    shortest.append(min(image.size))
                    pixels = np.asarray(image.convert("RGB").resize((16, 16))).astype(int)
                    grey = grey and int(np.ptp(pixels, axis=-1).max()) <= _GREY
        except DataError as error:
            broken.append(error)
    if broken:
        more = f"\nAnd {len(broken) - _NAMED} more." if len(broken) > _NAMED else ""
        raise DataError("\n".join(map(str, broken[:_NAMED])) + more)
    ImageFolder(os.path.abspath(root)).open()  # its warnings, and other errors
    return ImageSurvey(folder, len(files), round(statistics.median(shortest)), grey, tuple(classes), held_out)


def own_recipe(
    found: ImageSurvey, *, size: int, channels: int, flip: bool, classes: Sequence[str], steps: int, name: str
) -> str:
    """The text of a recipe, with comments, that a CPU trains.

    Args:
        found: What is in the folder.
        size: Height and width that images are resized to.
        channels: 1 for grey, 3 for colour.
        flip: Whether mirror images are trained on, too.
        classes: Names of the classes that the model is conditioned on; none for an unconditional one.
        steps: Training steps.
        name: Name of the run, in comments.
    """
    data = {"type": "ImageFolder", "root": found.root, "size": size, "channels": channels, "flip": flip}
    # Patches make feature maps smaller, which is where the time goes.
    patch = 1 if size < 32 else 2 if size < 64 else 4
    blocks, multipliers = (1, [1, 2]) if size < 32 else (2, [1, 2, 2])
    backbone = {"type": "UNet", "width": 32, "multipliers": multipliers, "blocks": blocks, "patch": patch, "groups": 8}
    backbone |= {"classes": len(classes)} if classes else {}
    training = {"steps": steps, "batch": min(64, found.count * (2 if flip else 1)), "lr": 2e-3}
    training |= {"warmup": min(100, steps // 10), "ema": 0.995, "preview_every": max(1, steps // 4)}
    how = "--class 0,1 --guidance 2" if classes else "--solver ddim:0.5 --steps 20"
    lines = [
        f"# {_in_line(os.path.basename(os.path.abspath(found.root)))}, {size} x {size} pixels: a small model.",
        f"#   unidiff run {name}.yaml --dry-run   says how much memory and time it needs",
        f"#   unidiff run {name}.yaml             trains it, and draws samples",
        f"#   unidiff sample runs/{name} {how}",
        "# The short side of an image is resized to `size`, then its centre is cut out. `flip` adds mirror images.",
        f"data: {write_yaml(data, flow=True)}",
        "process: {type: DDPM, T: 1000, schedule: {type: Cosine}}",
        "parameterization: {type: V}",
        "# More `width` and `blocks` make a larger model. `groups: 8`: as diffusers has it, for `unidiff export`.",
        f"backbone: {write_yaml(backbone, flow=True)}",
    ]
    if classes:
        names = ", ".join(map(_in_line, classes[:8])) + ", ..." * (len(classes) > 8)
        lines += [f"# The class of an image is its subfolder: {names}.", "conditioning: {type: Labels, dropout: 0.1}"]
    lines += [
        "# More `steps` make better images, also afterwards: `unidiff resume RUN --extend --set training.steps=...`.",
        f"training: {write_yaml(training, flow=True)}",
        "sampling: {solver: {type: ExponentialAdams}, grid: {type: Tapered, steps: 50}, count: 64}",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _in_line(name: str) -> str:
    """A name of others in a comment, which a line break would end."""
    return " ".join(clean(name).split())
