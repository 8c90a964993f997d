"""The network of a saved pipeline as the backbone of a recipe, to be trained further whole or by low-rank changes."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from unidiff.backbone.base import Backbone
from unidiff.backbone.low_rank import add_low_rank, fresh_changes, low_rank_layers, merge_low_rank
from unidiff.codec.folder import codec_folder, read_layout
from unidiff.errors import DataError, ParameterError, UnidiffError, require
from unidiff.interop.diffusers.families import family_of
from unidiff.interop.diffusers.load import SUPPORTED, network_backbone, network_folder, scheduler_of
from unidiff.interop.diffusers.texts import kept_texts, prompted
from unidiff.pretrained import CONFIG, WEIGHTS, import_diffusers, load_part, local_folder, model_type, read_json
from unidiff.search_paths import expand

__all__ = ["Pretrained"]

_OWN = "inner.network."
_LORA = "pytorch_lora_weights.safetensors"
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Pretrained(Backbone):
    """The network of a model that diffusers saved, with its own time, conditions and scale of input and output.

    A recipe needs only `start: FOLDER`, from which this and the process are filled in. The folder is needed as long as
    the run: config and text encoders are read from it.

    Args:
        shape: Shape of one sample.
        folder: The pipeline or model, or its name on the hub. Its weights are those of `start`.
        classes: Number of classes of the data, of a network of classes.
        lora: Rank of the changes that are trained in place of the weights (LoRA); null trains the network whole.
        lora_alpha: Scale of these changes times the rank; null for the rank.
        lora_layers: The linear layers that are changed: what their names end with, or with wildcards.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        folder: str,
        classes: int | None = None,
        lora: int | None = None,
        lora_alpha: float | None = None,
        lora_layers: tuple[str, ...] = _ATTENTION,
    ) -> None:
        place = _found(folder)
        try:
            inner = _network(place, tuple(shape))
        except (UnidiffError, DataError) as error:
            raise ParameterError("folder", str(error)) from error
        require(tuple(inner.shape) == tuple(shape), "shape", tuple(shape), f"that of its samples, {inner.shape}")
        own = inner.classes
        if classes is not None and (own is None or classes > own):
            has = "no classes" if own is None else f"{own} class{'es' * (own > 1)}"
            raise ParameterError("classes", f"the network in {folder} has {has}, got {classes}")
        super().__init__(shape, conditions=inner.conditions, learned_variance=inner.learned_variance)
        model = scheduler_of(place)
        self.unscaled = model is None or not model.scaled
        self.folder = place
        if lora is not None:
            add_low_rank(inner.network, lora, lora_alpha, lora_layers)
        self.inner = inner

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        output: Tensor = self.inner(x, c, **cond)
        return output

    def saved_weights(self, folder: Path) -> dict[str, Tensor]:
        """The weights of a folder that diffusers saved, by the names here; low-rank changes begin at zero.

        Raises:
            RunError: If they cannot be read, or are those of a network of another class.
        """
        saved = load_part(network_folder(folder), (type(self.inner.network).__name__,), allow_pickle=False)
        weights = {f"{_OWN}{name}": value for name, value in saved.state_dict().items()}
        return weights | {f"{_OWN}{name}": value for name, value in fresh_changes(self.inner.network).items()}

    def save_pipeline(self, folder: Path) -> str | None:
        """Write the pipeline with these weights in place of its own; low-rank changes also as a file of their own.

        Args:
            folder: An empty folder.

        Returns:
            Class of the pipeline; None for a network alone.
        """
        network, source = copy.deepcopy(self.inner.network).cpu(), self.folder
        part = network_folder(source).relative_to(source)
        shutil.copytree(source, folder, ignore=_ignored(source / part), dirs_exist_ok=True)
        if layers := low_rank_layers(network):
            changes: dict[str, Tensor] = {}
            for name, layer in layers.items():
                changes[f"{part.name or 'unet'}.{name}.lora_A.weight"] = layer.lora_A.detach().contiguous()
                changes[f"{part.name or 'unet'}.{name}.lora_B.weight"] = (layer.factor * layer.lora_B).detach()
            save_file(changes, folder / _LORA)
            merge_low_rank(network)
        network.save_pretrained(folder / part)
        index = source / "model_index.json"
        return str(read_json(index).get("_class_name")) if os.path.isfile(index) else None


def _ignored(network: Path) -> Any:
    """What is not copied: the weights of the network, what Git and the hub keep, a card about the old weights."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        own = {name for name in names if Path(folder) == network and name.startswith(WEIGHTS)}
        return own | {name for name in names if name in ("README.md", _LORA) or name.startswith(".")}

    return ignore


def _found(folder: str) -> Path:
    try:
        return local_folder(expand(folder, "folder"), False)
    except UnidiffError as error:
        raise ParameterError("folder", str(error)) from error


def _network(folder: Path, shape: tuple[int, ...]) -> Any:
    """The network of a folder with fresh weights, as a backbone."""
    diffusers, part = import_diffusers(), network_folder(folder)
    family = family_of(folder)
    name = model_type(part, SUPPORTED if family is None else (family.network,))
    config = {key: value for key, value in read_json(part / CONFIG).items() if key != "_name_or_path"}
    network = getattr(diffusers, name).from_config(config)
    if family is None:
        return network_backbone(network)
    factor = read_layout(codec_folder(str(folder))).factor
    size = (shape[1] * factor, shape[2] * factor)
    return prompted(folder, family, network, size, kept_texts(folder, size))
