"""The state of an optimiser in a checkpoint: whether it is that of this optimiser, before it is put to use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.errors import RunError, is_whole
from unidiff.training.optimizer import Optimizer

__all__ = ["require_like", "require_same_kind", "restored"]

# Sums and averages of squares, and counts: no other state is at least 0 by what it is.
_AT_LEAST_0 = frozenset({"step", "exp_avg_sq", "row_var", "col_var", "variance", "weight_sum"})


def require_same_kind(kind: str, settings: Optimizer) -> None:
    """Raise a RunError unless the optimiser that a run continues with is of the kind that it was begun with."""
    if kind != settings.kind:
        remedy = f"Continue with it, or train into another folder with {settings.kind}"
        raise RunError(f"training.optimizer: these checkpoints are those of a training with {kind}. {remedy}.")


def restored(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, settings: Optimizer) -> None:
    """Put a saved state into an optimiser; a ValueError if it is that of another one.

    What is set of an optimiser are the settings of today, and not those of the file.
    """
    require_like(saved, optimizer, settings)
    groups = settings.continued(saved["param_groups"], optimizer.state_dict()["param_groups"])
    optimizer.load_state_dict({**saved, "param_groups": groups})


def require_like(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, settings: Optimizer) -> None:
    """Raise a ValueError unless a saved state has the form of that of this optimiser, weight for weight.

    Args:
        saved: What is about to be loaded.
        optimizer: The optimiser that it is loaded into.
        settings: What made it.
    """
    own, weights = optimizer.state_dict(), [weight for group in optimizer.param_groups for weight in group["params"]]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in own["param_groups"]]:
        raise ValueError("optimizer.pt is that of other weights")
    for group, default in zip(saved["param_groups"], own["param_groups"]):
        for name in group.keys() & default.keys():
            if name != "lr" and _form(group[name]) != _form(default[name]):
                raise ValueError(f"optimizer.pt has the {name} {group[name]!r:.40}")
    expected: dict[object, Mapping[str, Any]] = {}
    for number, values in saved["state"].items():
        weight = weights[number]
        alike = (tuple(weight.shape), weight.dtype)
        if alike not in expected:
            expected[alike] = _state_of(settings, weight)
        if values.keys() != expected[alike].keys():
            raise ValueError(f"optimizer.pt has the moments {', '.join(map(str, values))} of weight {number}")
        for name, value in values.items():
            _require_value(name, value, expected[alike][name], weight, number)


def _require_value(name: str, value: Any, like: Any, weight: Tensor, number: int) -> None:
    """Raise a ValueError unless an entry of a weight's state has the form of another one, and is a number."""
    if type(like) is not Tensor:
        sound = is_whole(value, 0) if type(like) is int else type(value) is type(like)
        if not (sound and (type(value) is not float or (0 if name in _AT_LEAST_0 else -float("inf")) <= value)):
            raise ValueError(f"optimizer.pt has the {name} {value!r:.40} of weight {number}")
        return
    expected = tuple(like.shape)
    sound = type(value) is Tensor and value.layout == torch.strided
    sound = sound and value.is_floating_point() == like.is_floating_point()
    sound = sound and not (value.is_meta or value.requires_grad)
    # The fused step writes as if the layout were that of the weight, beyond the memory of one that is smaller.
    dense = sound and (value.is_contiguous() or value.stride() == weight.stride())
    if not (dense and tuple(value.shape) == expected):
        raise ValueError(f"optimizer.pt has no {name} of shape {expected} for weight {number}")
    if not (value >= 0 if name in _AT_LEAST_0 else value.isnan().logical_not()).all():
        raise ValueError(f"optimizer.pt has values of {name} that none can be, for weight {number}")


def _state_of(optimizer: Optimizer, weight: Tensor) -> Mapping[str, Any]:
    """The state that an optimiser keeps of a weight of this shape, device and format, after one step."""
    twin = nn.Parameter(torch.zeros(weight.shape, dtype=weight.dtype, device=weight.device))
    twin.grad = torch.zeros_like(twin)
    steps = optimizer.make([twin], 1e-3, 0.0, [torch.zeros_like(twin)])
    steps.step()
    state: Mapping[str, Any] = steps.state_dict()["state"].get(0, {})
    return state


def _form(value: object) -> object:
    """What a setting of an optimiser must share with another one: number or not, and how many."""
    if isinstance(value, (tuple, list)):
        return [_form(part) for part in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)
