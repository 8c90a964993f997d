"""How a network is executed in training: compiled, and with the activations of its blocks computed a second time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unidiff.acceleration import compiled, lay_channels_last
from unidiff.errors import ParameterError
from unidiff.training.settings import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["blocks_of", "divided", "executed", "placed", "to_train"]


def placed(network: nn.Module, device: torch.device, settings: Training) -> nn.Module:
    """The network itself on a device, its weights laid out in memory as the settings say."""
    network = network.to(device)
    return lay_channels_last(network) if settings.channels_last else network


def to_train(network: nn.Module) -> None:
    """Put a network into training mode, but for frozen layers, whose running statistics are frozen too."""
    network.train()
    for layer in network.modules():
        own = [weight.requires_grad for weight in layer.parameters(recurse=False)]
        layer.training = not own or any(own)


def divided(settings: Training, accelerator: Accelerator) -> bool:
    """Whether the weights of a network are divided between processes."""
    return settings.sharded and accelerator.num_processes > 1


def executed(network: nn.Module, settings: Training, accelerator: Accelerator | None = None) -> nn.Module:
    """The network as it is evaluated in training, by one process or, with an accelerator, several; it is not copied.

    Raises:
        ParameterError: If gradient checkpointing is asked for and the network has no blocks.
    """
    inner = compiled(network, "training.compile") if settings.compile else network
    parallel = _Checkpointed(network, inner) if settings.gradient_checkpointing else inner
    if accelerator is None or divided(settings, accelerator):
        return parallel
    prepared: nn.Module = accelerator.prepare_model(parallel)
    return prepared


class _Checkpointed(nn.Module):
    """A network that keeps the inputs of its blocks alone for the backward pass (Chen et al. 2016).

    Blocks are the entries of its lists (nn.ModuleList), of which a network has as many as it is deep. Each is evaluated
    again, with the same dropout, when its gradients are needed.

    Args:
        network: The network.
        inner: The network as it is executed.
    """

    def __init__(self, network: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._forwards: dict[nn.Module, Callable[..., Tensor]] = {
            block: partial(checkpoint, block.forward, use_reentrant=False) for block in blocks_of(network)
        }
        if not self._forwards:
            problem = f"{type(network).__name__} has no list of blocks (nn.ModuleList) whose activations could be freed"
            raise ParameterError("training.gradient_checkpointing", f"{problem}. Leave it out.")

    def forward(self, *args: Tensor, **cond: Tensor) -> Tensor:
        for block, evaluate in self._forwards.items():
            block.forward = evaluate
        try:
            return self.inner(*args, **cond)
        finally:
            for block in self._forwards:
                del block.forward  # the method of its class again


def blocks_of(network: nn.Module, listed: bool = False) -> list[nn.Module]:
    """The outermost entries of lists of a network that are no lists themselves and have weights."""
    if listed and type(network) is not nn.ModuleList:
        return [network] if any(True for _ in network.parameters()) else []
    inside = listed or type(network) is nn.ModuleList
    return [block for child in network.children() for block in blocks_of(child, inside)]
