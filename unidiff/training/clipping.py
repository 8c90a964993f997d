"""The norm of the gradient, and its limit."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["all_finite", "clip_gradient"]


def clip_gradient(weights: list[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradient of all weights to a norm of at most `limit`, if there is one; returns the norm before.

    The numbers are those of `torch.nn.utils.clip_grad_norm_`, which sorts tensors by device and format first: in a
    small network this takes as long as the norm. Without a limit the gradient stays as it is, whatever its norm.
    """
    grads = [weight.grad for weight in weights if weight.grad is not None and weight.grad.numel()]
    kinds = {(type(grad), grad.dtype, grad.device) for grad in grads}
    if len(kinds) != 1 or kinds.pop()[0] is not Tensor:  # such as weights that are divided between processes
        if limit is None:
            return nn.utils.get_total_norm(grads, foreach=True)
        return nn.utils.clip_grad_norm_(weights, limit, foreach=True)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if limit is not None:
        torch._foreach_mul_(grads, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers are finite, on the device: the largest of each tensor is NaN where one of them is."""
    numbers = [x for x in tensors if x.numel() and (x.is_floating_point() or x.is_complex())]
    return torch.stack(torch._foreach_norm(numbers, math.inf)).isfinite().all() if numbers else torch.tensor(True)
