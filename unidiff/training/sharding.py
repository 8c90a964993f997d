"""Weights, gradients and moments divided between processes (FSDP): for networks that one device does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._pytree import tree_map

from unidiff.training.ema import EMA
from unidiff.training.execution import blocks_of

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["local", "sharded", "whole"]

T = TypeVar("T")


def sharded(
    network: nn.Module,
    average: EMA,
    optimizer: torch.optim.Optimizer,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    accelerator: Accelerator,
) -> tuple[EMA, torch.optim.Optimizer]:
    """Divide a network, its average and its optimiser, which are alike in all processes, between them.

    By `fully_shard` of PyTorch (Zhao et al. 2023; FSDP 2): each process keeps a part of every weight, and of its
    gradient, average and moments. A block's weights are whole only while it is evaluated.

    Args:
        network: The network, whose weights become parts.
        average: Its average, whose network stays whole.
        optimizer: Its optimiser, with the state that it has come to.
        make: Makes such an optimiser of other weights.
        accelerator: The processes.

    Returns:
        The average and the optimiser of the parts.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    saved = optimizer.state_dict()
    for module in (*blocks_of(network), network):
        fully_shard(module, mesh=mesh)
    weights = list(network.parameters())
    divided = make(weights)
    for number, values in saved["state"].items():
        like = weights[number]
        saved["state"][number] = {
            name: _part_of(value, like) if value.shape == like.shape else value for name, value in values.items()
        }
    divided.load_state_dict({**saved, "param_groups": divided.state_dict()["param_groups"]})
    return _ShardedEMA(average, network), divided


class _ShardedEMA(EMA):
    """An average of which each process keeps a part; its network has the whole since the last `gather`."""

    def __init__(self, average: EMA, network: nn.Module) -> None:
        self.network = average.network
        pairs = zip(average.network.parameters(), network.parameters())
        self._parts = [_part_of(own.detach(), like) for own, like in pairs]

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """See `EMA.update`."""
        get_ema_multi_avg_fn(decay)([*map(local, self._parts)], [*map(local, network.parameters())], 0)
        for average, current in zip(self.network.buffers(), network.buffers()):
            average.copy_(current)

    @torch.no_grad()
    def gather(self) -> None:
        """See `EMA.gather`."""
        for own, part in zip(self.network.parameters(), self._parts):
            own.copy_(whole(part))


def _part_of(value: Tensor, like: Any) -> Tensor:
    """This process's part of a tensor that all processes have, divided as a weight is."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def local(value: Any) -> Tensor:
    """The part of a tensor that this process has; all of one that is not divided."""
    part: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return part


def whole(tree: T) -> T:
    """The tensors of nested lists and mappings as one process would have them; all processes must ask together."""
    gathered: T = tree_map(lambda value: value.full_tensor() if hasattr(value, "full_tensor") else value, tree)
    return gathered
