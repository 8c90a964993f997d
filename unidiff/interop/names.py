"""Tables of names, read in both directions: weights of ours against those of another library."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unidiff.errors import ParameterError

__all__ = ["Names"]


class Names:
    """Names of weights, ours -> theirs. Queries, keys and values are one matrix here and three there.

    Args:
        *rules: Regular expressions on our names, and what replaces them; each name meets every rule, in order.
    """

    def __init__(self, *rules: tuple[str, str]) -> None:
        self._rules = [(re.compile(ours), theirs) for ours, theirs in rules]

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of one weight, whose rows are theirs one after another."""
        for pattern, replacement in self._rules:
            ours = pattern.sub(replacement, ours)
        return tuple(ours.replace(".qkv.", f".to_{letter}.") for letter in "qkv") if ".qkv." in ours else (ours,)

    def renamed(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under their names: views of ours."""
        found: dict[str, Tensor] = {}
        for name, value in ours.items():
            names = self.theirs(name)
            found.update(zip(names, value.chunk(len(names))))
        return found

    def restored(self, theirs: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """Weights under our names: copies of theirs.

        Args:
            theirs: Weights under their names.
            network: Whose weights they are to be.

        Raises:
            ParameterError: If weights are missing or there are more.
        """
        wanted = {ours: self.theirs(ours) for ours in network.state_dict()}
        names = {name for several in wanted.values() for name in several}
        if names != set(theirs):
            missing, extra = sorted(names - set(theirs)), sorted(set(theirs) - names)
            problem = f"the weights are not those of the config: missing {missing}, unknown {extra}."
            raise ParameterError("state", problem)
        return {ours: torch.cat([theirs[name] for name in several]).detach() for ours, several in wanted.items()}

    def load(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Give a network weights under our names, whatever device it was built on.

        Raises:
            ParameterError: If a shape is not the network's.
        """
        for ours, weight in network.state_dict().items():
            if state[ours].shape != weight.shape:
                shapes = f"the shape {tuple(state[ours].shape)}; the config says {tuple(weight.shape)}"
                raise ParameterError("state", f"{', '.join(self.theirs(ours))} has {shapes}.")
        network.load_state_dict(state, assign=True)
