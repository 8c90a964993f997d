"""The conditions that a network was built for, whoever wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn

from unidiff.condition.base import Condition, Named, require_distinct
from unidiff.condition.image import Image
from unidiff.condition.vector import Label
from unidiff.errors import ParameterError

__all__ = ["check_network", "conditions_of"]


def check_network(network: nn.Module) -> None:
    """Raise a ParameterError if its `forward` cannot be called with a noisy sample and a noise condition."""
    signature = inspect.signature(network.forward)
    try:
        signature.bind_partial(None, None)
    except TypeError as error:
        problem = "its forward must take a noisy sample and the noise condition, as forward(self, x, c, **cond) does"
        raise ParameterError("backbone", f"{problem}; that of {type(network).__name__} is {signature}.") from error


def conditions_of(network: nn.Module | Callable[..., Tensor]) -> tuple[Condition, ...] | None:
    """The conditions that a network, or a function, was built for; None if it takes any.

    They are its attribute `conditions`. Without one they are those that it names, in an attribute `condition_names` or
    in the signature of `forward` after state and noise condition: `label` is one of its `classes`, `image` one of its
    `image` channels, where it has these attributes, and of the others nothing but the name is known.

    Raises:
        ParameterError: If its attribute `conditions` does not hold conditions of different names.
    """
    if (declared := getattr(network, "conditions", None)) is not None:
        require_distinct(tuple(declared), "backbone.conditions")
        return tuple(declared)
    classes, channels = getattr(network, "classes", None), getattr(network, "image", None)
    size = tuple(getattr(network, "shape", None) or ())[1:]
    known: dict[str, Condition] = {"image": Image(channels, size)} if channels else {}
    known |= {"label": Label(classes)} if classes else {}
    if (names := getattr(network, "condition_names", None)) is None:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters
        variadic = any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values())
        names = None if variadic else tuple(parameters)[2:]
    if names is None:
        return tuple(known.values()) or None
    return tuple(known.get(name) or Named(name) for name in names)
