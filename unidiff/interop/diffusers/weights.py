"""The weights of a model saved by diffusers for a network of unidiff, from which its training starts."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers.architecture import architecture_of
from unidiff.interop.diffusers.native import MODEL, read_native
from unidiff.pretrained import load_part

__all__ = ["read_weights"]


def read_weights(folder: Path, network: nn.Module) -> dict[str, Tensor]:
    """Weights by our names, of a pipeline, of a model alone, or of a folder that `export` wrote.

    Args:
        folder: The folder.
        network: The network that they are for; its own weights are not read, it may be on the meta device.

    Raises:
        RunError: If diffusers has no such network, or the files are missing, broken or those of another network.
    """
    if (saved := getattr(network, "saved_weights", None)) is not None:
        weights: dict[str, Tensor] = saved(folder)
        return weights
    if os.path.isfile(folder / MODEL):
        return read_native(folder, "cpu").backbone.state_dict()
    try:
        architecture = architecture_of(network)
        part = folder / architecture.folder if os.path.isdir(folder / architecture.folder) else folder
        saved = load_part(part, (architecture.name,), allow_pickle=False)
        return architecture.restored(saved.config, saved.state_dict(), network)
    except ParameterError as error:
        raise RunError(f"{folder}: {error}") from error
