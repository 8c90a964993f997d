"""Codecs on the disk: a run's, a folder that diffusers saved, or one from the hub."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unidiff.codec.codec import Autoencoder
from unidiff.codec.layout import Layout
from unidiff.data.search_paths import Absent, find
from unidiff.errors import DataError

__all__ = ["CONFIG", "KEPT", "WEIGHTS", "codec_folder", "digest", "import_diffusers", "load_codec", "read_layout"]

CONFIG, WEIGHTS, PICKLE = "config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
KEPT = "codec"  # the folder of a run directory that holds its codec
_HUB = "hub:"
_INSIDE = (KEPT, "vae", "vqvae")  # where a run, or a pipeline of diffusers, keeps its codec


def import_diffusers() -> Any:
    """The package diffusers, which is imported only when a codec is used.

    Raises:
        DataError: If it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise DataError(f"Codecs need the package diffusers ({error}): pip install 'unidiff[diffusers]'.") from error
    return diffusers


def codec_folder(name: str) -> Path:
    """The folder that holds a codec's config.json.

    Args:
        name: A run of a recipe with a `codec`, a folder saved by diffusers (a model, or a pipeline that has one), or
            `hub:OWNER/NAME`, which is downloaded. Relative folders are looked up as given, then under $UNIDIFF_DATA.

    Raises:
        DataError: If there is nothing, or no codec; the message says what was found and what is supported.
    """
    if name.startswith(_HUB):
        return _from_hub(name.removeprefix(_HUB))
    try:
        place = find(name, "codec")
    except Absent as error:
        last = Path(name).name
        made = f"`unidiff run {last} --out {name}` makes one if {last} is a recipe with a `codec`"
        raise Absent(f"{error} {made}; `hub:OWNER/NAME` names one on the Hugging Face hub.") from error
    for folder in (place, *(place / inside for inside in _INSIDE)):
        if (folder / CONFIG).is_file():
            return folder
    if (place / "recipe.yaml").is_file():
        problem = "this run has no codec: its recipe has none, or is not finished. Go on with it by --resume"
    else:
        problem = f"there is no {CONFIG} in it. Give a run of a codec, or a folder saved by diffusers' save_pretrained"
    raise DataError(f"codec: {place}: {problem}.")


def _from_hub(name: str) -> Path:
    if os.environ.get("UNIDIFF_OFFLINE", "") not in ("", "0"):
        raise Absent(f"codec: hub:{name}: downloads are switched off by the environment variable UNIDIFF_OFFLINE.")
    files = [f"{inside}{file}" for inside in ("", *(f"{part}/" for part in _INSIDE[1:])) for file in (CONFIG, WEIGHTS)]
    try:
        return codec_folder(_snapshot(name, tuple(files)))
    except (OSError, ValueError) as error:  # what the hub's client raises are these
        raise Absent(f"codec: hub:{name} could not be downloaded ({error}).") from error


@lru_cache(maxsize=8)
def _snapshot(name: str, files: tuple[str, ...]) -> str:
    """The folder of a download, asked for once: the hub is spoken to each time, even for what is there."""
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=list(files))


def read_layout(folder: Path) -> Layout:
    """Shapes and scale of the codec in a folder, from its config.json alone.

    Raises:
        DataError: If the file is damaged, or is that of another model.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
        family = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path} is no configuration of a model ({type(error).__name__}: {error})"
        raise DataError(f"codec: {problem}. Supported are folders saved by diffusers.") from error
    layout = Layout.of(family, config, f"codec: {folder}")
    layout.check_scale()
    return layout


def digest(folder: Path) -> str:
    """SHA-256 of a codec's configuration and weights, as "sha256:..."; the weights are read whole.

    Raises:
        DataError: If the weights are missing, or pickled.
    """
    _require_weights(folder)
    marks = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in (folder / CONFIG, folder / WEIGHTS))
    return _digest(folder.absolute(), marks)


@lru_cache(maxsize=8)
def _digest(folder: Path, marks: tuple[tuple[int, int], ...]) -> str:
    total = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            one = hashlib.sha256()
            while block := file.read(1 << 20):
                one.update(block)
        total.update(one.digest())
    return f"sha256:{total.hexdigest()}"


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        problem = "its weights are pickled, and reading them may run any code"
        remedy = f"If you trust them: unidiff.codec.load_codec({str(folder)!r}, allow_pickle=True).save(ANOTHER_FOLDER)"
        raise DataError(f"codec: {folder}: {problem}. {remedy}.")
    raise DataError(f"codec: {folder}: {WEIGHTS} is missing. Save the model again, in one piece, as safetensors.")


def load_codec(name: str | Path, *, allow_pickle: bool = False, device: torch.device | str = "cpu") -> Autoencoder:
    """Read a codec, in evaluation mode and without gradients.

    Args:
        name: As for `Latent`: a run of a recipe with a `codec`, a folder saved by diffusers, or `hub:OWNER/NAME`.
        allow_pickle: Also read pickled weights. Only for files that you trust: reading them may run any code.
        device: Where it is to be.

    Raises:
        DataError: If there is no codec, its weights are damaged, or diffusers is missing.
    """
    folder = codec_folder(os.fspath(name))
    layout = read_layout(folder)
    if not allow_pickle:
        _require_weights(folder)
    cls = getattr(import_diffusers(), layout.family)
    safe = (folder / WEIGHTS).is_file()
    try:
        model, found = cls.from_pretrained(
            folder, use_safetensors=safe, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
        if missing := found["missing_keys"]:
            raise ValueError(f"{missing[0]} and {len(missing) - 1} others are missing")
    except Exception as error:  # a damaged file shows itself in many ways
        reason = str(error).strip().partition("\n")[0]  # of a size that does not fit, diffusers writes many lines
        problem = f"the weights cannot be read, or are not those of {CONFIG} ({reason.rstrip('.: ')})"
        raise DataError(f"codec: {folder}: {problem}. Bring the files back.") from error
    return Autoencoder(model).to(device).eval().requires_grad_(False)
