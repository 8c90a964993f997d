"""The networks that diffusers has as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.dit import DiT
from unidiff.backbone.unet import UNet
from unidiff.condition.network import conditions_of
from unidiff.errors import ParameterError
from unidiff.interop.diffusers.folding import fold
from unidiff.interop.dit import dit_from_diffusers, dit_to_diffusers
from unidiff.interop.unet import unet_from_diffusers, unet_to_diffusers

__all__ = ["NULL", "Architecture", "architecture_of"]

NULL = 1000  # DiTPipeline's index of the null class
_LABELS = "class_embedder.embedding_table.weight"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network in both libraries.

    Attributes:
        folder: Where a pipeline keeps it.
        name: Its class in diffusers.
        codec: Where a pipeline keeps the codec of its latents.
        latents: The pipeline that samples latents.
        pixels: The pipeline that samples images; None if there is none.
        folds: Whether the network folds patches and diffusers' does not; see `fold`.
        exported: Config and weights there of a network; a ParameterError if diffusers' network cannot compute it.
        restored: Weights here, by our names, from config and weights there and a network of the same settings; a
            ParameterError if they do not fit it.
    """

    folder: str
    name: str
    codec: str
    latents: str
    pixels: str | None
    folds: bool
    exported: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    restored: Callable[[Mapping[str, Any], Mapping[str, Tensor], Any], dict[str, Tensor]]

    def patch(self, network: Any) -> int:
        """Pixels a side of the patches that `fold` folds."""
        return int(network.patch) if self.folds else 1


def _dit_exported(network: DiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The table of classes is lengthened to `NULL`, which the pipeline uses as null class whatever their number."""
    config, state = dit_to_diffusers(network)
    rows = config["num_embeds_ada_norm"]
    if rows < NULL:
        for name in (name for name in state if name.endswith(_LABELS)):
            state[name] = torch.cat([state[name][:-1], state[name][-1:].expand(NULL + 1 - rows, -1)])
        config["num_embeds_ada_norm"] = NULL
    return config, state


def _dit_restored(config: Mapping[str, Any], state: Mapping[str, Tensor], network: DiT) -> dict[str, Tensor]:
    classes = network.classes or 1
    trimmed = {
        name: torch.cat([value[:classes], value[-1:]]) if name.endswith(_LABELS) else value
        for name, value in state.items()
    }
    return dit_from_diffusers({**config, "num_embeds_ada_norm": classes}, trimmed).state_dict()


_ARCHITECTURES: dict[type[nn.Module], Architecture] = {
    UNet: Architecture(
        folder="unet",
        name="UNet2DModel",
        codec="vqvae",
        latents="LDMPipeline",
        pixels="DDPMPipeline",
        folds=True,
        exported=lambda network: unet_to_diffusers(fold(network)),
        restored=lambda config, state, network: unet_from_diffusers(config, state, fold(network).shape).state_dict(),
    ),
    DiT: Architecture(
        folder="transformer",
        name="DiTTransformer2DModel",
        codec="vae",
        latents="DiTPipeline",
        pixels=None,
        folds=False,
        exported=_dit_exported,
        restored=_dit_restored,
    ),
}


def architecture_of(network: nn.Module) -> Architecture:
    """What a network is in diffusers.

    Raises:
        ParameterError: If diffusers has no such network, or the network has conditions other than a label.
    """
    architecture = _ARCHITECTURES.get(type(network))
    if architecture is None:
        supported = " and ".join(cls.__name__ for cls in _ARCHITECTURES)
        problem = f"diffusers has no equivalent of {type(network).__name__}, only of {supported}"
        remedy = " Export the run of its `start`, the network without the branches." * hasattr(network, "branches")
        raise ParameterError("network", f"{problem}.{remedy}")
    if others := [condition.name for condition in conditions_of(network) or () if condition.name != "label"]:
        problem = f"diffusers' {architecture.name} has no {others[0]} condition, as this network needs."
        raise ParameterError("network", problem)
    return architecture
