"""Models and pipelines saved by diffusers, on disk or on the Hugging Face hub, checked before diffusers reads them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from unidiff import reading
from unidiff.distribution import install
from unidiff.errors import RunError
from unidiff.reading import Unreadable
from unidiff.search_paths import require_online

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "download",
    "import_diffusers",
    "is_saved",
    "load_part",
    "local_folder",
    "model_type",
    "read_json",
    "require_name",
]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_LIMIT = 40_000_000_000  # bytes of a download
_HUB = "hub:"
_HOW = "Use the folder that save_pretrained wrote"


def import_diffusers() -> Any:
    """The package diffusers, imported on first use; raises a RunError if it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise RunError(f"This needs the package diffusers ({error}): {install('diffusers')}.") from error
    return diffusers


def require_name(name: str) -> None:
    """Raise a RunError unless this is OWNER/NAME."""
    if not _NAME.fullmatch(name):
        raise RunError(f"{name}: a model on the Hugging Face hub is named OWNER/NAME. Correct the name.")


def download(name: str, files: Sequence[str]) -> Path:
    """The folder of a downloaded model of the hub.

    Args:
        name: owner/name.
        files: Patterns of the files to download.

    Raises:
        RunError: If it cannot be downloaded, or downloads are switched off.
    """
    require_name(name)
    try:
        require_online()
        return Path(_snapshot(name, tuple(files)))
    except Exception as error:  # of the network, of the hub, of a cache
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"{name} cannot be downloaded from the Hugging Face hub ({reason}).") from error


@lru_cache(maxsize=8)
def _snapshot(name: str, files: tuple[str, ...]) -> str:
    """The folder of a download, requested once: the client contacts the hub even for what is cached."""
    from huggingface_hub import HfApi, snapshot_download

    total = 0
    with suppress(Exception):  # without a network, what is cached is used
        siblings = HfApi().model_info(name, files_metadata=True, timeout=10).siblings or []
        asked = (file for file in siblings if any(fnmatchcase(file.rfilename, pattern) for pattern in files))
        total = sum(file.size or 0 for file in asked)
    if total > _LIMIT:
        raise RunError(f"its files have {total / 1e9:.0f} GB, and at most {_LIMIT / 1e9:.0f} GB are downloaded")
    return snapshot_download(name, allow_patterns=list(files))


def is_saved(path_or_name: str | Path) -> bool:
    """Whether this names what diffusers saved: a folder of its files, hub:OWNER/NAME, or OWNER/NAME of the hub.

    The last only where there is no folder OWNER, and for no OWNER `runs`: it may be the path of a run, misspelt.
    """
    text = os.fspath(path_or_name)
    if os.path.lexists(text):
        return any(os.path.isfile(os.path.join(text, name)) for name in ("model_index.json", CONFIG))
    owner, _, name = text.removeprefix(_HUB).partition("/")
    if text.startswith(_HUB):
        return True
    is_file = name.endswith((".yaml", ".yml", ".npy"))
    return _NAME.fullmatch(text) is not None and owner != "runs" and not is_file and not os.path.lexists(owner)


def local_folder(path_or_name: str | Path, allow_pickle: bool) -> Path:
    """The folder of a saved model or pipeline, downloaded if it is owner/name; raises a RunError if there is none."""
    folder = Path(path_or_name)
    if os.path.isdir(folder):
        return folder
    path_or_name = os.fspath(path_or_name).removeprefix(_HUB)
    parts = path_or_name.split("/")
    if os.path.exists(folder) or len(parts) != 2 or not all(parts) or parts[0] in (".", ".."):
        raise RunError(f"{path_or_name}: this is neither a folder nor a name on the hub, owner/name. {_HOW}.")
    try:
        return download(str(path_or_name), ("*.json", "*.yaml", "*.safetensors", *(["*.bin"] if allow_pickle else [])))
    except RunError as error:
        raise RunError(f"There is no such folder here, and {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; raises a RunError if it is missing, unreadable, or not a mapping."""
    try:
        return reading.read_json(path)
    except Unreadable as error:
        problem = f"{path.parent}: {path.name} is missing" if error.missing else f"{path}: {error.problem}"
        raise RunError(f"{problem}. {_HOW}.") from error


def model_type(folder: Path, supported: Sequence[str]) -> str:
    """The class of the model in a folder, by its present name; raises a RunError if it is not one of `supported`."""
    config = read_json(folder / CONFIG)
    name = config.get("_class_name") or config.get("architectures")  # the latter of transformers
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return "DiTTransformer2DModel"  # as it was called when its first models were saved
    if name not in supported:
        written = ", ".join(map(str, name)) if isinstance(name, list) else name
        raise RunError(f"{folder}: the model is of type {written}; supported here is {' or '.join(supported)}.")
    return str(name)


def load_part(
    folder: Path, supported: Sequence[str], allow_pickle: bool, build: Callable[[Any], Any] | None = None
) -> Any:
    """A model of diffusers from its own folder, in evaluation mode, on the CPU.

    Args:
        folder: Holds config.json and the weights.
        supported: Names of the classes that can be loaded.
        allow_pickle: Accept weights in pickle files, which may run any code when they are read.
        build: Makes the network from the class, for weights that are not those of a network of diffusers.

    Raises:
        RunError: If a file is missing or broken, the class is not supported, or the weights are a pickle.
    """
    name = model_type(folder, supported)
    # Weights that are no variant, whole or in parts with an index.
    safe, pickled = (
        any(os.path.isfile(folder / f"{WEIGHTS}.{suffix}{index}") for index in ("", ".index.json"))
        for suffix in ("safetensors", "bin")
    )
    if not safe and not pickled:
        if variants := sorted(path.name for path in folder.glob(f"{WEIGHTS}.*.safetensors")):
            problem = f"{WEIGHTS}.safetensors is missing, and only a variant of it is there: {variants[0]}"
            raise RunError(f"{folder}: {problem}. Rename it, or load a folder that was saved without `variant`.")
        remedy = "" if allow_pickle else " If the hub has them as a pickle only (.bin), pass allow_pickle=True."
        raise RunError(f"{folder}: the weights are missing: {WEIGHTS}.safetensors.{remedy}")
    if not safe and not allow_pickle:
        problem = "the weights are a pickle, which may run any code when it is read"
        raise RunError(f"{folder}: {problem}. If you trust it, pass allow_pickle=True.")
    model_class = getattr(import_diffusers(), name)
    options = inspect.signature(model_class).parameters
    for option, value in read_json(folder / CONFIG).items():  # a string, such as "false", would be true
        if isinstance(value, str) and option in options and isinstance(options[option].default, bool):
            raise RunError(f"{folder / CONFIG}: {option} must be true or false, got {value!r}.")
    from unidiff.noise import global_states_kept

    try:
        with global_states_kept():  # fresh weights are drawn first
            if build is not None:
                model = build(model_class)
                missing, unexpected = model.load_state_dict(
                    reading.read_tensors(folder / f"{WEIGHTS}.safetensors"), strict=False
                )
                loading = {"missing_keys": missing, "unexpected_keys": unexpected}
            else:
                model, loading = model_class.from_pretrained(
                    folder,
                    use_safetensors=safe,
                    local_files_only=True,
                    low_cpu_mem_usage=False,
                    output_loading_info=True,
                )
    except Exception as error:  # whatever diffusers, safetensors or pickle raise for a broken file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunError(f"{folder}: diffusers cannot read this {name}: {reason}") from error
    for problem in ("missing", "unexpected"):  # which diffusers fills with random numbers, or leaves out
        if keys := loading[f"{problem}_keys"]:
            some = f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else keys[0]
            raise RunError(f"{folder}: the weights are not those of the network in config.json: {problem} {some}.")
    return model.eval().requires_grad_(False)
