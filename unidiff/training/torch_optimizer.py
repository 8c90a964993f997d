"""The optimisers of PyTorch and of other packages as objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.errors import ParameterError, require
from unidiff.training.optimizer import Optimizer

__all__ = ["TorchOptimizer", "as_optimizer"]

_UNFIT = {"LBFGS": "needs several evaluations of the loss a step", "SparseAdam": "needs sparse gradients"}
_OWN = ("params", "lr")  # arguments of an optimiser that training sets


@dataclass(frozen=True)
class TorchOptimizer(Optimizer):
    """An optimiser of torch.optim, or, in Python, of any other package.

    `Training(optimizer=torch.optim.RAdam)` is short for `Training(optimizer=TorchOptimizer("RAdam"))`.

    Args:
        name: Name of a class of torch.optim; in Python also the class, or a function of the weights and of `lr`.
        arguments: Its further arguments by name, `weight_decay` among them.
    """

    name: str | Callable[..., torch.optim.Optimizer]
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {name: cls for name, cls in vars(torch.optim).items() if inspect.isclass(cls) and name != "Optimizer"}
        known = {name: cls for name, cls in known.items() if issubclass(cls, torch.optim.Optimizer)}
        for name in (name for name, cls in known.items() if cls is self.name):
            object.__setattr__(self, "name", name)  # which a recipe can say
        if isinstance(self.name, str):
            allowed = f"a class of torch.optim ({', '.join(name for name in known if name not in _UNFIT)})"
            require(self.name in known, "name", self.name, allowed)
            if self.name in _UNFIT:
                raise ParameterError("name", f"{self.name} {_UNFIT[self.name]}, which training does not have")
        for own in _OWN:
            if own in self.arguments:
                remedy = "Set training.lr." if own == "lr" else "Leave it out."
                raise ParameterError("arguments", f"{own} is set by training. {remedy}")
        object.__setattr__(self, "arguments", dict(self.arguments))
        self.make([nn.Parameter(torch.zeros(2, 2))], 1e-3, 0.0, ())

    @property
    def kind(self) -> str:
        """See `Optimizer.kind`."""
        if isinstance(self.name, str):
            return f"torch.optim.{self.name}"
        return f"{self.name.__module__}.{getattr(self.name, '__qualname__', type(self.name).__name__)}"

    def make(
        self, weights: Sequence[nn.Parameter], lr: float, weight_decay: float, averages: Sequence[Tensor]
    ) -> torch.optim.Optimizer:
        """See `Optimizer.make`."""
        cls: Any = getattr(torch.optim, self.name) if isinstance(self.name, str) else self.name
        try:
            made = cls(list(weights), lr=lr, **self.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ParameterError("arguments", f"{self.kind} cannot be made of them: {error}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise ParameterError("name", f"{self.kind} must return a torch.optim.Optimizer, got {made!r:.40}")
        return made

    def decay(self, weight_decay: float) -> float:
        """See `Optimizer.decay`."""
        if weight_decay:
            remedy = f"write arguments: {{weight_decay: {weight_decay}}} in the optimizer"
            raise ParameterError("weight_decay", f"what it means differs among the optimisers of PyTorch; {remedy}")
        return 0.0

    def continued(self, groups: list[dict[str, Any]], own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The saved ones, in which some optimisers of other packages have state; see `Optimizer.continued`."""
        set_here = [{name: group[name] for name in self.arguments if name in group} for group in own]
        return [{**group, **settings} for group, settings in zip(groups, set_here)]


def as_optimizer(value: Any) -> Any:
    """An optimiser, of a class of torch.optim or a function too; anything else as it is."""
    ours = isinstance(value, type) and issubclass(value, Optimizer)
    return TorchOptimizer(value) if callable(value) and not ours else value
