"""Codecs on the disk: a run's, a folder that diffusers saved, or one from the hub."""

from __future__ import annotations

import math
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unidiff.arguments import plain_arguments
from unidiff.codec.codec import FAMILIES, Autoencoder, Layout
from unidiff.codec.ranks import RANK, at_rank
from unidiff.errors import DataError, RunError
from unidiff.files import digest as file_digest
from unidiff.files import digest_of
from unidiff.pretrained import CONFIG, download, load_part, read_json
from unidiff.pretrained import WEIGHTS as _STEM
from unidiff.search_paths import Absent, find

__all__ = ["CONFIG", "KEPT", "WEIGHTS", "codec_folder", "digest", "load_codec", "read_layout"]

WEIGHTS = f"{_STEM}.safetensors"
KEPT = "codec"  # the folder of a run directory that holds its codec
_HUB = "hub:"
_INSIDE = (KEPT, "vae", "vqvae")  # where a run, or a pipeline of diffusers, keeps its codec


def codec_folder(name: str) -> Path:
    """The folder that holds a codec's config.json.

    Args:
        name: A run of a recipe with a `codec`, a folder saved by diffusers (a model, or a pipeline that has one), or
            `hub:OWNER/NAME`, which is downloaded. A relative folder may be under $UNIDIFF_DATA.

    Raises:
        DataError: If it does not exist or holds no codec.
    """
    if name.startswith(_HUB):
        files = [f"{part}{file}" for part in ("", "vae/", "vqvae/") for file in (CONFIG, WEIGHTS)]
        try:
            notice = f"codec: {name} is downloaded from the Hugging Face hub, unless it has been before."
            warnings.warn(notice, stacklevel=2)
            return codec_folder(str(download(name.removeprefix(_HUB), files)))
        except RunError as error:
            raise Absent(f"codec: {_HUB}{error}") from error
    try:
        top = find(name, "codec")
    except Absent as error:
        last = Path(name).name
        remedy = f"`unidiff run {last} --out {name}` creates it if {last} is a recipe with a `codec`"
        raise Absent(f"{error} {remedy}; `hub:OWNER/NAME` loads one from the Hugging Face hub.") from error
    for folder in (top, *(top / inside for inside in _INSIDE)):
        if os.path.isfile(folder / CONFIG):
            return folder
    if os.path.isfile(top / "recipe.yaml"):
        problem = "this run has no codec: its recipe has none, or the run is not finished. Continue it with --resume"
    else:
        problem = f"it contains no {CONFIG}. Use the run of a codec, or a folder saved by diffusers' save_pretrained"
    raise DataError(f"codec: {top}: {problem}.")


def read_layout(folder: Path) -> Layout:
    """Shapes and scale of the codec in a folder, from its config.json; raises a DataError if these are not usable."""
    try:
        config = read_json(folder / CONFIG)
    except RunError as error:
        raise DataError(f"codec: {error}") from error
    layout = Layout.of(config.get("_class_name"), config, f"codec: {folder}")
    if not (math.isfinite(layout.scale) and layout.scale > 0 and math.isfinite(layout.shift)):
        problem = f"this {layout.family} has scale {layout.scale} and shift {layout.shift}; measure them again"
        raise DataError(f"codec: {folder}: {problem}.")
    return layout


def digest(folder: Path) -> str:
    """SHA-256 of a codec's configuration and weights; raises a DataError if these are missing or pickled."""
    _require_weights(folder)
    marks = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in (folder / CONFIG, folder / WEIGHTS))
    return _digest(folder.absolute(), marks)


@lru_cache(maxsize=8)
def _digest(folder: Path, marks: tuple[tuple[int, int], ...]) -> str:
    digests = (file_digest(folder / name).removeprefix("sha256:") for name in (CONFIG, WEIGHTS))
    return digest_of(map(bytes.fromhex, digests))


def _require_weights(folder: Path) -> None:
    if os.path.isfile(folder / WEIGHTS):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        problem = "its weights are pickled, and reading them may run any code"
        remedy = f"If you trust them: unidiff.codec.load_codec({str(folder)!r}, allow_pickle=True).save(ANOTHER_FOLDER)"
        raise DataError(f"codec: {folder}: {problem}. {remedy}.")
    raise DataError(f"codec: {folder}: {WEIGHTS} is missing. Save the model again, in one piece, as safetensors.")


@plain_arguments
def load_codec(name: str | Path, *, allow_pickle: bool = False, device: torch.device | str = "cpu") -> Autoencoder:
    """Read a codec, in evaluation mode and without gradients.

    Args:
        name: A run of a recipe with a `codec`, a folder saved by diffusers, or `hub:OWNER/NAME`; see `Latent`.
        allow_pickle: Also read pickled weights. Only for files that you trust: reading them may run any code.
        device: Device of the codec.

    Raises:
        DataError: If there is no codec, its weights are damaged, or diffusers is missing.
    """
    folder = codec_folder(os.fspath(name))
    layout = read_layout(folder)
    if not allow_pickle and not os.path.isfile(folder / f"{WEIGHTS}.index.json"):
        _require_weights(folder)
    try:
        config = {key: value for key, value in read_json(folder / CONFIG).items() if key != RANK}

        def build(model_class: Any) -> Any:
            return at_rank(model_class.from_config(config), layout.rank)

        model = load_part(folder, tuple(FAMILIES), allow_pickle, None if layout.rank == 2 else build)
    except RunError as error:
        raise DataError(f"codec: {error}") from error
    return Autoencoder(model).to(device)
