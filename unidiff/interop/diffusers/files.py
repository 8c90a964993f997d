"""The files of a saved model or pipeline, checked before diffusers opens them."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unidiff.errors import RunError

__all__ = ["WEIGHTS", "load_part", "local_folder", "model_type", "read_json", "require_diffusers"]

WEIGHTS = "diffusion_pytorch_model"


def require_diffusers() -> None:
    """Raise a RunError unless diffusers is installed."""
    if importlib.util.find_spec("diffusers") is None:
        raise RunError("This needs the package diffusers: pip install 'unidiff[diffusers]'.")


def local_folder(path_or_name: str | Path, allow_pickle: bool) -> Path:
    """The folder of a saved model or pipeline; one of the hub, as owner/name, is fetched.

    Raises:
        RunError: If there is none.
    """
    folder = Path(path_or_name)
    if folder.is_dir():
        return folder
    parts = str(path_or_name).split("/")
    if folder.exists() or len(parts) != 2 or not all(parts) or parts[0] in (".", ".."):
        problem = "this is no folder, and no name on the hub, which is owner/name"
        raise RunError(f"{path_or_name}: {problem}. Give the folder that save_pretrained wrote.")
    if os.environ.get("UNIDIFF_OFFLINE", "") not in ("", "0"):
        problem = "no such folder here, and downloads are switched off by the environment variable UNIDIFF_OFFLINE"
        raise RunError(f"{path_or_name}: {problem}.")
    require_diffusers()
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.yaml", "*.safetensors", *(["*.bin"] if allow_pickle else [])]
    try:
        return Path(snapshot_download(str(path_or_name), allow_patterns=wanted))
    except Exception as error:  # of the network, of the hub, of a cache: all kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{path_or_name}: no such folder here, and the hub does not give it: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        RunError: If it is missing or is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path.parent}: {path.name} is missing. Give the folder that save_pretrained wrote.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: this is no readable JSON ({error}).") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: a mapping belongs here.")
    return found


def model_type(folder: Path, supported: Sequence[str]) -> str:
    """The class of a saved model, by its present name.

    Args:
        folder: Holds config.json.
        supported: Names of the classes that are understood here.

    Raises:
        RunError: If it is another, or config.json is missing or broken.
    """
    config = read_json(folder / "config.json")
    name = config.get("_class_name") or config.get("architectures")  # the latter of transformers
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return "DiTTransformer2DModel"  # as it was called when its first models were saved
    if name not in supported:
        found = ", ".join(map(str, name)) if isinstance(name, list) else name
        raise RunError(f"{folder}: the model is of type {found}; supported here is {' or '.join(supported)}.")
    return str(name)


def _weights(folder: Path, suffix: str) -> bool:
    """Whether weights of no variant are there, whole or in parts with an index."""
    return any((folder / f"{WEIGHTS}.{suffix}{index}").is_file() for index in ("", ".index.json"))


def load_part(folder: Path, supported: Sequence[str], allow_pickle: bool) -> Any:
    """A model of diffusers from its own folder, in evaluation mode, on the CPU.

    Args:
        folder: Holds config.json and the weights.
        supported: Names of the classes that are understood here.
        allow_pickle: Accept weights in pickle files, which may run any code when they are read.

    Raises:
        RunError: If a file is missing or broken, the class is another, or the weights are a pickle.
    """
    name = model_type(folder, supported)
    safe = _weights(folder, "safetensors")
    if not safe and not _weights(folder, "bin"):
        if variants := sorted(path.name for path in folder.glob(f"{WEIGHTS}.*.safetensors")):
            problem = f"{WEIGHTS}.safetensors is missing, and only a variant of it there: {variants[0]}"
            raise RunError(f"{folder}: {problem}. Rename it, or load a folder that was saved without `variant`.")
        remedy = "" if allow_pickle else " If the hub has them as a pickle only (.bin), pass allow_pickle=True."
        raise RunError(f"{folder}: the weights are missing: {WEIGHTS}.safetensors.{remedy}")
    if not safe and not allow_pickle:
        problem = "the weights are a pickle, which may run any code when it is read"
        raise RunError(f"{folder}: {problem}. If you trust it, pass allow_pickle=True.")
    import diffusers

    try:
        kind = getattr(diffusers, name)
        model, found = kind.from_pretrained(
            folder, use_safetensors=safe, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # whatever diffusers, safetensors or pickle make of a broken file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunError(f"{folder}: diffusers cannot read this {name}: {reason}") from error
    for what in ("missing", "unexpected"):  # which diffusers fills with random numbers, or leaves out
        if wrong := found[f"{what}_keys"]:
            some = f"{wrong[0]} and {len(wrong) - 1} more" if len(wrong) > 1 else wrong[0]
            raise RunError(f"{folder}: the weights are not those of the network in config.json: {what} {some}.")
    return model.eval().requires_grad_(False)
