"""The page of a run, made of the files that are in its directory; see `unidiff report`."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageSequence

from unidiff import plot
from unidiff.errors import RecipeError, RunError
from unidiff.files import is_inside, whole_file
from unidiff.page.html import MARK, content_of
from unidiff.page.report import Figure, RunFacts, page
from unidiff.reading import read_bytes
from unidiff.recipe.shipped import read_source
from unidiff.recipe.yaml_tree import read_yaml
from unidiff.run.directory import RunDirectory
from unidiff.run.shipped import not_a_run, run_digest
from unidiff.text import first_line, operand
from unidiff.training.checkpoint import Checkpoints
from unidiff.writable import require_file

__all__ = ["PAGES", "image_bytes", "lost_measurements", "read_run", "weights_digest", "write_page", "write_run_page"]

PAGES = {"a report of unidiff": MARK.encode()}  # what a page may replace; see `require_file`
_MOST_SAMPLES, _MOST_FRAMES, _MOST_FIGURES = 64, 40, 6
_MOST_SIDE = 10_000  # pixels of a sample
_MOST_POINTS = 1000  # of the curve of the loss
_IMAGE_LIMIT, _PIXEL_LIMIT = 8_000_000, 50_000_000  # bytes of a file, pixels of an image
_FIGURES = {"png": "png", "gif": "gif"}


_MEASURED = ("evaluation", "comparison", "neighbours", "likelihood")  # what takes minutes
_PAGE_LIMIT = 200_000_000  # bytes


def write_run_page(files: RunDirectory, values: Mapping[str, Any], notice: Callable[[str], None]) -> None:
    """Write the page of a run that has ended into its directory. If that fails, a notice says so and all else stays."""
    try:
        require_file(files.page, "the report,", PAGES, "Move it away.")
        if lost_measurements(files.page, [{"digest": weights_digest(files)}]):
            notice(f"{files.page} is kept: it has measurements of these weights, made with --full.")
            return
        write_page(files.page, page([read_run(files.path, values)]))
    except Exception as error:  # the run is finished, and nothing that goes wrong here may change that
        again = f"unidiff report {shlex.quote(operand(files.path))}"
        notice(f"The report was not written ({first_line(error)}). `{again}` tries again.")


def weights_digest(files: RunDirectory) -> str | None:
    """The digest of the recipe and the newest averaged weights of a run; None if it has none."""
    newest = next(iter(Checkpoints(files.checkpoints).paths()), None)
    if newest is None or not os.path.isfile(weights := newest / "ema.safetensors"):
        return None
    return run_digest(files.recipe, weights)


def lost_measurements(path: Path, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a page at this path says of the weights of these runs, and what a page of the given contents would not."""
    try:
        old = content_of(read_bytes(path, _PAGE_LIMIT).decode("utf-8"))
        held = {run["digest"]: run for run in old["runs"] if run.get("digest")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no page, or a damaged one
        return []
    pairs = [(held[run["digest"]], run) for run in runs if run.get("digest") in held]
    return [name for name in _MEASURED if any(name in before and name not in after for before, after in pairs)]


def write_page(path: Path, text: str) -> None:
    """Write a page whole or not at all; an OSError if that fails."""
    with whole_file(path) as partial:
        partial.write_text(text, "utf-8", errors="replace")


def read_run(directory: Path, values: Mapping[str, Any] | None = None) -> RunFacts:
    """What the files of a run say of it; no model is loaded.

    Args:
        directory: The run.
        values: The values of its recipe, if they are known; else they are read.

    Raises:
        RunError: If it is not a run, or its recipe, manifest or metrics are damaged.
    """
    files = RunDirectory(directory)
    if not files.exists():
        raise not_a_run(directory)
    recipe = read_source(files.recipe)[1]
    values = _values(files, recipe) if values is None else values
    entries = {name: value for name, value in files.read_manifest().entries.items() if name != "recipe_yaml"}
    content: dict[str, Any] = {
        "name": files.name,
        "directory": str(directory),
        "manifest": entries,
        "recipe": recipe,
        "values": values,
        "metrics": _metrics(files),
    }
    tiles, figures = _tiles(files, entries, values), list[Figure]()
    if tiles:
        first = _whole(_sampling(values).get("seed"), 0)
        content["samples"] = {"seeds": list(range(first, first + len(tiles)))}
    animation = _read_image(files.samples / "trajectory.gif", files)
    if path := [image_bytes(frame) for frame in animation.frames] if animation is not None else []:
        times = entries.get("times")
        known = isinstance(times, list) and len(times) == len(path) and all(type(t) in (int, float) for t in times)
        content["path"] = {"times": times if known else None}
    used = {"grid.png"} if tiles else set[str]()
    used |= {"trajectory.gif", "trajectory.png"} if path else set()
    for file in _figures(files):
        if file.name not in used and (image := _read_image(file, files)) is not None:
            figures.append(Figure(image.data, f"{file.stem} of {files.name}", _FIGURES[file.suffix[1:]]))
    return RunFacts(content, tiles, path, figures[:_MOST_FIGURES])


def _values(files: RunDirectory, recipe: str) -> dict[str, Any]:
    try:
        values = read_yaml(recipe, str(files.recipe)).plain()
    except RecipeError as error:
        raise RunError(f"{error}") from error
    if not isinstance(values, dict):
        raise RunError(f"{files.recipe}: this is not a recipe. Restore the file.")
    return {name: value for name, value in values.items() if isinstance(name, str)}


def _sampling(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return section if isinstance(section := values.get("sampling"), dict) else {}


def _metrics(files: RunDirectory) -> dict[str, Any]:
    lines = files.read_metrics()
    every = -(-len(lines) // _MOST_POINTS) or 1
    thinned = [*lines[:-1:every], *lines[-1:]]
    curve = {name: [line[name] for line in thinned] for name in ("step", "loss")}
    return {"lines": len(lines), **curve, "last": lines[-1] if lines else None}


def _tiles(files: RunDirectory, entries: Mapping[str, Any], values: Mapping[str, Any]) -> list[bytes]:
    """The samples of the figure that the run has of them, one by one; none of points, volumes and other figures."""
    shape = (entries.get("data") or {}).get("shape")
    count = _whole(_sampling(values).get("count"), 0)
    if not (isinstance(shape, list) and len(shape) in (2, 3) and count):
        return []
    if not all(type(side) is int and 0 < side < _MOST_SIDE for side in shape):
        return []
    grid = _read_image(files.samples / "grid.png", files)
    cut = None if grid is None else plot.cut_samples(grid.frames[0], shape, count, _MOST_SAMPLES)
    return [image_bytes(image) for image in cut or ()]


def _figures(files: RunDirectory) -> list[Path]:
    """The figures of the finished run: not those of its training, nor those that were drawn later."""
    names = sorted(os.listdir(files.samples)) if os.path.isdir(files.samples) else []
    left_out = ("step-", "drawn-", ".")
    return [files.samples / name for name in names if name[-4:] in (".png", ".gif") and not name.startswith(left_out)]


class _Read(NamedTuple):
    """The bytes of an image, and its frames."""

    data: bytes
    frames: list[Image.Image]


def _read_image(path: Path, files: RunDirectory) -> _Read | None:
    """A PNG or GIF inside the run that can be read whole; None of anything else."""
    if not is_inside(path, files.path):
        return None
    try:
        data = read_bytes(path, _IMAGE_LIMIT)
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
            count = getattr(image, "n_frames", 1)
            if count > _MOST_FRAMES or image.width * image.height * count > _PIXEL_LIMIT:
                return None
            return _Read(data, [frame.convert("RGB") for frame in ImageSequence.Iterator(image)])
    except Exception:  # of Pillow, too, which has one of its own for every way that a file can be damaged
        return None


def image_bytes(image: Image.Image) -> bytes:
    """An image as a PNG; a grey one without colours, which is smaller."""
    red, *others = (channel.tobytes() for channel in image.split())
    image, out = image.convert("L") if others == [red, red] else image, io.BytesIO()
    image.save(out, "PNG", compress_level=1)  # noise does not become smaller by more
    return out.getvalue()


def _whole(value: object, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 2**62 else otherwise
