"""The networks that diffusers has as well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unidiff.backbone.unet import UNet
from unidiff.errors import ParameterError
from unidiff.interop.unet import unet_from_diffusers, unet_to_diffusers

__all__ = ["Kind", "kind_of"]


class Kind(ABC):
    """A network in both libraries.

    Attributes:
        folder: Where a pipeline keeps it.
        name: Its class in diffusers.
    """

    folder: str
    name: str

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


class _UNet(Kind):
    folder, name = "unet", "UNet2DModel"

    def exported(self, network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Kind.exported`."""
        channels, height, breadth = network.shape
        if (reads := network.stem.in_channels // network.patch**2) != channels:
            problem = f"it reads {reads} channels where a sample has {channels}, and UNet2DModel knows no image condition"
            raise ParameterError("network", f"{problem}.")
        config, state = unet_to_diffusers(network)
        size = height if height == breadth else [height, breadth]
        return {**config, "sample_size": size}, state

    def restored(self, config: Mapping[str, Any], state: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """See `Kind.restored`."""
        return unet_from_diffusers(config, state, network.shape).state_dict()


_KINDS: dict[type[nn.Module], Kind] = {UNet: _UNet()}


def kind_of(network: nn.Module) -> Kind:
    """What a network is in diffusers.

    Raises:
        ParameterError: If it is nothing there.
    """
    kind = _KINDS.get(type(network))
    if kind is None:
        known = " and ".join(known.__name__ for known in _KINDS)
        problem = f"diffusers has no {type(network).__name__}; what it has as well are {known}."
        raise ParameterError("network", problem)
    return kind
