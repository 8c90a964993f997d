"""The text encoders of a pipeline of diffusers, and its network conditioned on what they make of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.codec.folder import codec_folder, read_layout
from unidiff.errors import RunError, require, require_whole
from unidiff.interop.diffusers.families import Family, Size, family_of
from unidiff.interop.diffusers.prompt import Prompt, PromptedBackbone, packed
from unidiff.pretrained import CONFIG, import_diffusers, read_json

__all__ = ["Texts", "kept_texts", "prompted", "times_options"]


@dataclass(frozen=True)
class Texts:
    """What the text encoders of a pipeline make of a prompt.

    Attributes:
        prompt: The condition.
        shapes: Shape of each of its parts, by name.
    """

    prompt: Prompt
    shapes: Mapping[str, tuple[int, ...]]


def prompted(
    folder: Path, family: Family, network: Any, size: Size | None, texts: Texts | None = None, device: Any = "cpu"
) -> PromptedBackbone:
    """The network of a pipeline, conditioned on a prompt.

    Args:
        folder: The pipeline.
        family: Its family.
        network: Its network.
        size: Height and width of its images; None for those that it was trained on.
        texts: Its text encoders; None to read them.
        device: Where text encoders that are read are to be.

    Raises:
        RunError: If the text encoders cannot be read.
        ParameterError: If the network's config is unsupported, or the size does not fit.
    """
    config = network.config
    channels = config.in_channels // family.fold**2
    distilled = config.get("time_cond_proj_dim")
    require(distilled is None, "time_cond_proj_dim", distilled, "null: a network that is passed a guidance scale")
    outputs = (config.get("out_channels") or config.in_channels) // family.fold**2
    require(outputs in (channels, 2 * channels), "out_channels", outputs, f"in_channels = {channels}, or twice that")
    sides, images = sizes_of(folder, family, config, size)
    texts = texts or _read_texts(folder, family, images, device)
    return PromptedBackbone(network, (channels, *sides), family.call, texts.shapes, texts.prompt, family.text)


def kept_texts(folder: Path, size: Size | None) -> Texts:
    """The text encoders of a pipeline on the CPU, read once for each size of images; None for its own size.

    Raises:
        RunError: If it is not a pipeline of text, or they cannot be read.
    """
    files = sorted(path for part in ("text_encoder*", "tokenizer*") for path in folder.glob(f"{part}/*"))
    marks = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _kept(folder.resolve(), size, marks)


@lru_cache(maxsize=2)
def _kept(folder: Path, size: Size | None, marks: tuple[tuple[str, int, int], ...]) -> Texts:
    """The same; the times and sizes of the files are part of the key, so that what has changed is read again."""
    if (family := family_of(folder)) is None:
        raise RunError(f"{folder}: not a pipeline from text to images, so it has no text encoders.")
    _, images = sizes_of(folder, family, read_json(folder / family.part / CONFIG), size)
    with torch.device("cpu"):  # also where the network is made on no device
        return _read_texts(folder, family, images, "cpu")


def _read_texts(folder: Path, family: Family, images: Size, device: Any) -> Texts:
    pipeline = _text_parts(folder, family, device)

    @torch.no_grad()
    def encode(text: str) -> Tensor:
        return packed(family.encode(pipeline, text, images)).cpu()

    @torch.no_grad()
    def negative(text: str | None) -> dict[str, Tensor]:
        if family.negative is None:
            return family.encode(pipeline, text or "", images)
        return family.negative(pipeline, text, images)

    parts = negative(None)
    empty = packed(parts).cpu()
    shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
    return Texts(Prompt(len(empty), encode, empty, lambda text: packed(negative(text)).cpu()), shapes)


def sizes_of(folder: Path, family: Family, config: Mapping[str, Any], size: Size | None) -> tuple[Size, Size]:
    """Height and width of latents and of images."""
    factor = read_layout(codec_folder(str(folder))).factor
    if size is None:
        side = config.get("sample_size") or 128  # Flux has none: its images have 1024 x 1024 pixels
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
    else:
        multiple = factor * (config.get("patch_size") or 1) * family.fold
        for pixels in size:
            require_whole("size", pixels)
            require(pixels % multiple == 0, "size", tuple(size), f"heights and widths divisible by {multiple}")
        height, width = (pixels // factor for pixels in size)
    return (height, width), (height * factor, width * factor)


def times_options(folder: Path, scheduler: Mapping[str, Any], steps: int, size: Size | None) -> dict[str, Any]:
    """What a pipeline passes to `set_timesteps` of its scheduler beside the number of steps.

    The shift of a flow to its noise grows with the number of tokens of an image (Esser et al. 2024, section 5.3.2).
    """
    family, options = family_of(folder), dict[str, Any]()
    if family is None:
        return options
    config = read_json(folder / family.part / CONFIG)
    if family.fold > 1 and not scheduler.get("use_flow_sigmas"):
        options["sigmas"] = torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist()
    if scheduler.get("use_dynamic_shifting"):
        (height, width), _ = sizes_of(folder, family, config, size)
        tokens = height * width // ((config.get("patch_size") or 1) * family.fold) ** 2
        low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
        fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
        options["mu"] = low + (tokens - fewest) * (high - low) / (most - fewest)
    return options


def _text_parts(folder: Path, family: Family, device: Any) -> Any:
    """The pipeline with its tokenizers and text encoders alone."""
    diffusers = import_diffusers()
    listed = read_json(folder / "model_index.json")
    parts = {name: part for name, part in listed.items() if isinstance(part, list) and part and part[0]}
    for name, (library, *_) in parts.items():
        if name.startswith(("text_encoder", "tokenizer")) and library != "transformers":
            problem = f"its {name} is of {library!r}, and reading it would run the code of that package"
            raise RunError(f"{folder}: {problem}. Supported are those of transformers.")
    without = [name for name in parts if not name.startswith(("text_encoder", "tokenizer", "scheduler"))]
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        remedy = "pip install transformers"
        raise RunError(f"{folder}: its text encoders need the package transformers ({error}): {remedy}.") from error
    from unidiff.noise import global_states_kept

    try:
        with global_states_kept():
            pipeline = getattr(diffusers, listed["_class_name"]).from_pretrained(
                folder, use_safetensors=True, local_files_only=True, **dict.fromkeys(without)
            )
    except Exception as error:  # whatever diffusers, transformers or safetensors raise for a broken file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunError(f"{folder}: the text encoders cannot be read: {reason}") from error
    return pipeline.to(device)
