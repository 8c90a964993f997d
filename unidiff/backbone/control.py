"""A network with control branches: networks beside it that see an image each and add to its features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unidiff.backbone.base import Backbone
from unidiff.condition.image import Control
from unidiff.errors import ParameterError, require

__all__ = ["ControlBranch", "Controlled", "add_controls"]

_NETWORK, _BRANCH = "network.", "branches.{}."  # of the names of weights


class ControlBranch(nn.Module, ABC):
    """A network that makes features for another one of a noisy sample and an image (Zhang et al. 2023, eq. 2).

    Attributes:
        condition: The image.
    """

    condition: Control

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, image: Tensor, **cond: Tensor) -> Sequence[Tensor]:
        """The features, one tensor for each place where the network takes some.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,).
            image: Images of the condition, (B, channels, H', W') in [-1, 1].
            **cond: The conditions of the network, by name.
        """

    def weights_from(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights by name, to begin the training of a branch with: copies of those of the network, or fresh ones.

        Args:
            start: Weights of the network.
        """
        raise NotImplementedError(f"{type(self).__name__} is not a copy of a network")


class Controlled(Backbone):
    """A network h = f(x) with control branches g_k: every feature h_i becomes h_i + sum_k scale_k g_k(x, image_k)_i.

    A branch of scale 0 is not evaluated, so that with all scales 0 the network is the one without branches, bit for
    bit. Their images are further conditions of the network, and required.

    Args:
        network: The network, which implements `Backbone.with_features`.
        branches: The branches, whose conditions have different names.
        scales: Factor of the features of each branch.

    Raises:
        ParameterError: If the scales are not finite numbers, one for each branch, or two conditions have one name.
    """

    def __init__(self, network: Backbone, branches: Sequence[ControlBranch], scales: Sequence[float]) -> None:
        if len(scales) != len(branches):
            raise ParameterError("scales", f"must be as many as branches, {len(branches)}, got {len(scales)}")
        for scale in scales:
            require(not isinstance(scale, bool) and math.isfinite(scale), "scales", scale, "finite numbers")
        conditions = (*network.conditions, *(branch.condition for branch in branches))
        super().__init__(network.shape, conditions=conditions, learned_variance=network.learned_variance)
        self.network = network
        self.branches = nn.ModuleList(branches)
        self._images = tuple(branch.condition.name for branch in branches)
        self.scales = tuple(map(float, scales))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`; the conditions are those of the network and the images of the branches."""
        values = self._values(cond, x)
        own = {condition.name: values[condition.name] for condition in self.network.conditions}
        total: list[Tensor] | None = None
        for branch, name, scale in zip(self.branches, self._images, self.scales):
            if scale == 0:
                continue
            features = [scale * feature for feature in branch(x, c, values[name], **own)]
            total = features if total is None else [a + b for a, b in zip(total, features)]
        if total is None:
            output: Tensor = self.network(x, c, **own)
            return output
        return self.network.with_features(x, c, total, **own)

    def with_scales(self, scales: Sequence[float]) -> Controlled:
        """The same network and branches with other scales, one for each or one for all."""
        scales = [*scales] * (len(self.branches) if len(scales) == 1 else 1)
        branches: list[Any] = [*self.branches]
        return Controlled(self.network, branches, scales).train(self.training)

    def weights_from(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights by name, to begin the training of the branches with; those of a `Controlled` as they are.

        Args:
            start: Weights of the network, by name.
        """
        if start.keys() == self.state_dict().keys():
            return dict(start)
        weights = {_NETWORK + name: value for name, value in start.items()}
        for number, branch in enumerate(self.branches):
            own: dict[str, Tensor] = branch.weights_from(start)  # type: ignore[operator]
            weights |= {_BRANCH.format(number) + name: value for name, value in own.items()}
        return weights


def add_controls(network: Backbone, conditions: Sequence[Control]) -> Controlled:
    """The network, frozen, with a branch of its own kind for each image, of scale 1.

    Raises:
        ParameterError: If the network has no kind of branch, or an image does not fit.
    """
    network.requires_grad_(False)
    branches = [network.control_branch(condition) for condition in conditions]
    return Controlled(network, branches, [1.0] * len(branches))
