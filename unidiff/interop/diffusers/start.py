"""A recipe that names only a folder of diffusers to start from: what the folder determines, filled in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unidiff.codec.folder import codec_folder, read_layout
from unidiff.errors import RunError, UnidiffError
from unidiff.interop.diffusers.families import family_of
from unidiff.interop.diffusers.load import network_folder, scheduler_of
from unidiff.pretrained import CONFIG, is_saved, local_folder, read_json
from unidiff.recipe.node import Location, Node
from unidiff.recipe.save import to_plain
from unidiff.search_paths import expand

__all__ = ["completed"]


def completed(recipe: Node) -> Node:
    """A recipe with `start: FOLDER` with the keys that are missing: process, parameterization, network and the like.

    Data of images become those of the latents of the pipeline's codec, and a model of text or of classes is conditioned
    on it. What is written stays as it is.

    Raises:
        RecipeError: If the folder does not determine them.
    """
    written = recipe.children()
    start = written["start"]
    name = start.value
    if not isinstance(name, str):
        return recipe
    try:
        if not is_saved(name):
            if not os.path.isdir(expand(name, "start")):
                raise RunError(f"{name}: neither a run directory nor a folder that diffusers saved. Correct the path.")
            return recipe  # a run, whose network the recipe writes again
        folder = local_folder(expand(name, "start"), False)
        found = _determined(folder, name, written)
    except UnidiffError as error:
        raise start.at.error("start", str(error)) from error
    own = written.get("backbone")
    network = {**_node(found.pop("backbone"), start.at).children(), **(own.children() if own is not None else {})}
    filled = {key: _node(value, start.at) for key, value in found.items() if key not in written}
    data = written.get("data")
    if data is not None and _has_codec(folder) and not _is_coded(data):
        codec = Node(name, start.location, start.at)
        latent = {"type": Node("Latent", data.location, data.at), "data": data, "codec": codec}
        filled["data"] = Node(latent, data.location, data.key)
    nodes = {**written, **filled, "backbone": Node(network, start.location, start.at)}
    return Node(nodes, recipe.location, recipe.key)


def _determined(folder: Path, name: str, written: dict[str, Node]) -> dict[str, Any]:
    """The keys of a recipe that a folder determines, in plain values."""
    keys: dict[str, Any] = {"backbone": {"type": "Pretrained", "folder": name}}
    model = scheduler_of(folder)
    if model is not None:
        keys |= {
            "process": to_plain(model.process),
            "parameterization": to_plain(model.parameterization),
            "noise_condition": to_plain(model.noise_condition),
        }
    config = read_json(network_folder(folder) / CONFIG)
    if family_of(folder) is not None:
        keys["conditioning"] = {"type": "Prompts", "folder": name}
        if (size := _size(written.get("data"))) is not None:
            keys["conditioning"]["size"] = [size, size]
    elif config.get("num_embeds_ada_norm"):
        keys["conditioning"] = {"type": "Labels"}
    elif config.get("num_class_embeds"):
        keys["conditioning"] = {"type": "Labels", "dropout": 0.0}  # it has no null class
    return keys


def _size(data: Node | None) -> int | None:
    """The `size` that the images have in a recipe, of latents or not."""
    children = {} if data is None else data.children()
    inner = children.get("data")
    size = (children if inner is None else inner.children()).get("size")
    return size.value if size is not None and isinstance(size.value, int) else None


def _is_coded(data: Node) -> bool:
    kind = data.children().get("type")
    return kind is not None and str(kind.value).replace("_", "").lower() == "latent"


def _has_codec(folder: Path) -> bool:
    if not any(os.path.isfile(folder / part / CONFIG) for part in ("vae", "vqvae")):
        return False
    return bool(read_layout(codec_folder(str(folder))).latent_channels)


def _node(value: Any, at: Location) -> Node:
    """Plain values as nodes of a recipe, all of one location."""
    if isinstance(value, dict):
        return Node({key: _node(inner, at) for key, inner in value.items()}, at, at)
    if isinstance(value, (list, tuple)):
        return Node([_node(inner, at) for inner in value], at, at)
    return Node(value, at, at)
