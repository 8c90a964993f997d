"""What a request for samples must be: a shape, seeds, conditions, and the memory for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from unidiff.acceleration import plainly
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError
from unidiff.memory import LOWER_BATCH, PLENTY, memory_of, require_memory
from unidiff.noise import seeds_of
from unidiff.tensors import check_axes, check_format
from unidiff.text import count_of

__all__ = ["check_request", "require_room", "shape_and_seeds"]


def require_room(
    denoiser: Denoiser,
    count: int,
    batch: int | None,
    shape: Sequence[int],
    cond: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Raise a ParameterError for more samples, or more of them at once, than a memory holds."""
    size = math.prod(shape) * dtype.itemsize
    together = min(count, batch or count)
    remedy = "Draw fewer at a time, with other seeds."
    require_memory("count", 2 * count * size, f"{count_of(count, 'sample')} of shape {tuple(shape)}", remedy, device)
    # Their state, noise, prediction of x0 and of eps.
    what = f"the states of {count_of(together, 'sample')} of shape {tuple(shape)}"
    require_memory("batch", 4 * together * size, what, LOWER_BATCH, device)
    if together > 2 and PLENTY * together * size > memory_of(device) // 2:
        needed = together * _activations(denoiser, shape, cond, dtype, device)
        require_memory("batch", needed, f"the layers of the network on {together} samples", LOWER_BATCH, device)


def _activations(
    denoiser: Denoiser, shape: Sequence[int], cond: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device | str
) -> int:
    """The most bytes that a layer takes in and gives out for each sample: what must be in the memory together."""
    sizes: list[int] = []

    def note(layer: nn.Module, taken: object, given: object) -> None:
        tensors = [value for value in tree_leaves((taken, given)) if isinstance(value, Tensor)]
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
        sizes.append(sum(storages.values()))

    hooks = [layer.register_forward_hook(note) for layer in denoiser.modules()]
    try:
        with torch.no_grad(), plainly():
            for count in (1, 2):  # whose difference is what grows with the batch, and no table of the network's own
                u = torch.zeros(count, *shape, dtype=dtype, device=device)
                rows = {name: value[:count] for name, value in cond.items()}
                denoiser(u, denoiser.process.level(1.0, u), **rows)
    finally:
        for hook in hooks:
            hook.remove()
    calls = len(sizes) // 2
    return max((two - one for one, two in zip(sizes[:calls], sizes[calls:])), default=0)


def check_request(
    denoiser: Denoiser,
    shape: Sequence[int] | None,
    seeds: Sequence[int] | int,
    cond: Mapping[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    batch: int | None = None,
) -> tuple[Sequence[int], Sequence[int], dict[str, Tensor]]:
    """The shape of a sample, one seed per sample, and the conditions on the device.

    Raises:
        ParameterError: If the shape is unknown or not the model's, the seeds are not integers, the conditions are not
            the model's, the dtype is not floating, the machine has no such device, or its memory is too small.
    """
    check_format(dtype, device)
    shape, seeds = shape_and_seeds(denoiser.shape, shape, seeds)
    own = check_conditions(cond, denoiser, len(seeds), device)
    require_room(denoiser, len(seeds), batch, shape, own, dtype, device)
    return shape, seeds, own


def shape_and_seeds(
    own: Sequence[int] | None, shape: Sequence[int] | None, seeds: Sequence[int] | int
) -> tuple[Sequence[int], Sequence[int]]:
    """The shape of a sample, by default the model's own, and one seed per sample."""
    shape = own if shape is None else shape
    if shape is None:
        raise ParameterError("shape", "this model has no sample shape of its own; pass one, such as (1, 28, 28).")
    return check_axes(shape, own), seeds_of(seeds)
