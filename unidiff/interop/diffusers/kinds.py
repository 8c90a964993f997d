"""The networks that diffusers has as well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.dit import DiT
from unidiff.backbone.unet import UNet
from unidiff.errors import ParameterError
from unidiff.interop.diffusers.folding import fold
from unidiff.interop.dit import dit_from_diffusers, dit_to_diffusers
from unidiff.interop.unet import unet_from_diffusers, unet_to_diffusers

__all__ = ["NULL", "Architecture", "kind_of"]

NULL = 1000  # the index by which DiTPipeline names no class


class Architecture(ABC):
    """A network in both libraries.

    Attributes:
        folder: Where a pipeline keeps it.
        name: Its class in diffusers.
        codec: Where a pipeline keeps the codec of its latents.
        latents: The pipeline that draws in latents.
        pixels: The pipeline that draws pictures; None if there is none.
    """

    folder: str
    name: str
    codec: str
    latents: str
    pixels: str | None

    def patch(self, network: Any) -> int:
        """Pixels a side of the patches that the network folds and diffusers' does not; see `fold`."""
        return 1

    @abstractmethod
    def exported(self, network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Config and weights there.

        Raises:
            ParameterError: If diffusers' network cannot compute this.
        """

    @abstractmethod
    def restored(self, config: Mapping[str, Any], state: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """Weights here, by our names, for a network like this.

        Raises:
            ParameterError: If they are not those of such a network.
        """


class _UNet(Architecture):
    folder, name = "unet", "UNet2DModel"
    codec, latents, pixels = "vqvae", "LDMPipeline", "DDPMPipeline"

    def patch(self, network: Any) -> int:
        """See `Architecture.patch`."""
        return int(network.patch)

    def exported(self, network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Architecture.exported`."""
        folded = fold(network)
        _, height, breadth = folded.shape
        config, state = unet_to_diffusers(folded)
        size = height if height == breadth else [height, breadth]
        return {**config, "sample_size": size}, state

    def restored(self, config: Mapping[str, Any], state: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """See `Architecture.restored`."""
        return unet_from_diffusers(config, state, fold(network).shape).state_dict()


class _DiT(Architecture):
    folder, name = "transformer", "DiTTransformer2DModel"
    codec, latents, pixels = "vae", "DiTPipeline", None

    def exported(self, network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Architecture.exported`. The table of classes gets the length that DiTPipeline asks for.

        Whatever the number of classes, the pipeline names the index 1000 where it means none.
        """
        config, state = dit_to_diffusers(network)
        rows = config["num_embeds_ada_norm"]
        if rows < NULL:
            for name in (name for name in state if name.endswith(_LABELS)):
                null = state[name][-1:]
                state[name] = torch.cat([state[name][:-1], null.expand(NULL + 1 - rows, -1)])
            config["num_embeds_ada_norm"] = NULL
        return config, state

    def restored(self, config: Mapping[str, Any], state: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """See `Architecture.restored`."""
        classes = network.classes or 1
        trimmed = {
            name: torch.cat([value[:classes], value[-1:]]) if name.endswith(_LABELS) else value
            for name, value in state.items()
        }
        return dit_from_diffusers({**config, "num_embeds_ada_norm": classes}, trimmed).state_dict()


_LABELS = "class_embedder.embedding_table.weight"

_KINDS: dict[type[nn.Module], Architecture] = {UNet: _UNet(), DiT: _DiT()}


def kind_of(network: nn.Module) -> Architecture:
    """What a network is in diffusers.

    Raises:
        ParameterError: If it is nothing there, or needs a condition that is an image.
    """
    kind = _KINDS.get(type(network))
    if kind is None:
        known = " and ".join(known.__name__ for known in _KINDS)
        problem = f"diffusers has no network like {type(network).__name__}, only like {known}."
        raise ParameterError("network", problem)
    if getattr(network, "image", None) is not None:
        raise ParameterError("network", f"diffusers' {kind.name} has no image condition, which this network needs.")
    return kind
