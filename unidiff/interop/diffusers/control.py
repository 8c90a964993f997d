"""Control branches that diffusers has saved: ControlNets of Stable Diffusion 1 and 2 and of SDXL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unidiff.backbone.control import ControlBranch, Controlled
from unidiff.condition.image import Control
from unidiff.errors import ParameterError, RunError, require
from unidiff.interop.diffusers.prompt import PromptedBackbone
from unidiff.pretrained import load_part, local_folder

__all__ = ["DiffusersControl", "controlled", "kept_controls"]

# What a branch and its network must have in common, by their configs.
_SHARED = ("in_channels", "block_out_channels", "down_block_types", "layers_per_block", "cross_attention_dim")


class DiffusersControl(ControlBranch):
    """A `ControlNetModel` as a control branch of a network of text.

    Args:
        network: The model of diffusers.
        base: The network that it is for.
        condition: The image.
    """

    def __init__(self, network: nn.Module, base: PromptedBackbone, condition: Control) -> None:
        super().__init__()
        self.network = network
        self.condition = condition
        self._texts = base.texts

    def forward(self, x: Tensor, c: Tensor, image: Tensor, **cond: Tensor) -> Sequence[Tensor]:
        """See `ControlBranch.forward`; the network takes images in [0, 1]."""
        shown = (image.to(x.dtype) + 1) / 2
        down, middle = self.network(x, c, controlnet_cond=shown, return_dict=False, **self._texts(cond["prompt"], x))
        return [*down, middle]


def controlled(
    base: PromptedBackbone,
    network: Any,
    folders: Sequence[str | Path],
    scale: float | Sequence[float],
    allow_pickle: bool,
) -> Controlled:
    """A network of text with ControlNets, whose images are the conditions `control`, `control_2`, ...

    Args:
        base: The network.
        network: Its model of diffusers.
        folders: The ControlNets: folders, or names on the hub.
        scale: The conditioning scale of each, or one for all.
        allow_pickle: Accept weights in pickle files.

    Raises:
        RunError: If one cannot be read, or is one of another network.
        ParameterError: If the network's family takes none, or the scales are not those of the folders.
    """
    if not base.takes_features:
        raise ParameterError("control", "only networks of Stable Diffusion 1 and 2 and of SDXL take a ControlNet here")
    scales: list[Any] = [*scale] if isinstance(scale, (list, tuple)) else [scale]
    scales *= len(folders) if len(scales) == 1 else 1
    numbers = all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) for each in scales
    )
    allowed = f"a finite number, or one for each of {len(folders)} ControlNets"
    require(numbers and len(scales) == len(folders), "control_scale", scale, allowed)
    branches = []
    for number, name in enumerate(folders, 1):
        folder = local_folder(name, allow_pickle)
        branch = load_part(folder, ("ControlNetModel",), allow_pickle)
        _check(folder, branch.config, network.config)
        factor = 2 ** (len(branch.config.conditioning_embedding_out_channels) - 1)
        size = tuple(side * factor for side in base.shape[1:])
        channels = branch.config.get("conditioning_channels", 3)
        control = Control(channels, size, name="control" if number == 1 else f"control_{number}")
        branches.append(DiffusersControl(branch, base, control))
    return Controlled(base, branches, scales)


def _check(folder: Path, branch: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Raise a RunError if a ControlNet is one of another network, or is used in another way."""
    for name in _SHARED:
        theirs, ours = branch.get(name), network.get(name)
        if _plain(theirs) != _plain(ours):
            problem = f"its {name} is {_plain(theirs)}, and that of the network {_plain(ours)}"
            raise RunError(f"{folder}: {problem}. It is the ControlNet of another network.")
    if branch.get("global_pool_conditions"):
        problem = "global_pool_conditions is true, which needs the guess mode of diffusers"
        raise RunError(f"{folder}: {problem}. Use a ControlNet without it.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def kept_controls(folder: Path) -> list[Path]:
    """The ControlNets that a pipeline keeps in its own folder; none for most."""
    names = ["controlnet", *(f"controlnet_{number}" for number in range(1, 100))]
    present = [folder / name for name in names]
    return [path for path in present if (path / "config.json").is_file()]
