"""The interface of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.condition.base import Condition, named, require_distinct
from unidiff.condition.image import Control, Image
from unidiff.condition.vector import Label
from unidiff.errors import ParameterError, require, require_whole

if TYPE_CHECKING:
    from unidiff.backbone.control import ControlBranch

__all__ = ["DEEPEST", "MOST_BLOCKS", "WIDEST", "Backbone", "require_size"]

# Limits far above any use: a typing error is a message instead of a full memory. Of blocks at each resolution, of
# layers one after another, of channels.
MOST_BLOCKS, DEEPEST, WIDEST = 100, 1000, 65536


class Backbone(PlainArguments, nn.Module, ABC):
    """A network from pixels to pixels, independent of processes and parameterizations.

    Args:
        shape: Shape of one sample, without the batch; () if the subclass sets the attribute itself.
        classes: Number of classes of the condition `label`; None without class conditioning.
        image: Channels of the condition `image`; None without image conditioning. In a recipe it follows from
            `conditioning`.
        learned_variance: Whether the variance of a reverse step is predicted too (Nichol & Dhariwal 2021, eq. 15). The
            output's first axis is then twice that of `shape`: the prediction, then for each of its elements the
            variance on a scale from -1 (beta-tilde) to 1 (beta); see `Prediction.variance_interpolation`.
        conditions: Further conditions, or all of them: `classes` and `image` stand for Label and Image.
    """

    shape: tuple[int, ...]
    conditions: tuple[Condition, ...] = ()
    learned_variance: bool = False
    unscaled: bool = False  # whether it takes the state as it is, and its output is not rescaled; see NeuralDenoiser
    keeps_arguments: ClassVar[bool] = True  # as a recipe has them: what saves a network writes them
    arguments: Mapping[str, Any]
    deepest: int = 0  # the largest `depth` of `evaluate`; 0 where none of its features can be kept

    def __init__(
        self,
        shape: tuple[int, ...] = (),
        classes: int | None = None,
        image: int | None = None,
        learned_variance: bool = False,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        super().__init__()
        for name, count, most in (("classes", classes, 1_000_000), ("image", image, 65536)):
            if count is not None:
                require_whole(name, count, 1, most)
        require(isinstance(learned_variance, bool), "learned_variance", learned_variance, "true or false")
        own = () if image is None else (Image(image, tuple(shape)[1:]),)
        every = (*own, *(() if classes is None else (Label(classes),)), *conditions)
        require_distinct(every)
        if shape:  # an image of any size is joined to samples of this one
            every = tuple(replace(own, size=tuple(shape)[1:]) if _any_size(own) else own for own in every)
        values = {"shape": tuple(shape), "conditions": every, "learned_variance": learned_variance}
        for name, value in values.items():
            if value:  # otherwise the class attribute holds
                setattr(self, name, value)

    @property
    def classes(self) -> int | None:
        """Number of classes of the condition `label`; None without one."""
        return getattr(named(self.conditions, "label"), "classes", None)

    @property
    def image(self) -> int | None:
        """Channels of the condition `image`; None without one."""
        return getattr(named(self.conditions, "image"), "channels", None)

    @property
    def outputs(self) -> int:
        """Size of the output's first axis."""
        return (2 if self.learned_variance else 1) * self.shape[0]

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy samples, (B, *shape).
            c: Noise condition, (B,): a number in about [0, 1000], larger = more noise.
            **cond: Conditions by name, each with B rows. Conditions that the network was not built for are an error.

        Returns:
            The network's output, (B, *shape); twice as long in the first axis with a learned variance.
        """

    def evaluate(
        self, x: Tensor, c: Tensor, depth: int, features: Tensor | None = None, **cond: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the network, or its layers near input and output alone, around the features of the others.

        Args:
            x: As in `forward`.
            c: As in `forward`.
            depth: How many layers are near, from 1 to `deepest`.
            features: What an earlier evaluation of the same depth gave; None evaluates all layers, as `forward` does.
            **cond: As in `forward`.

        Returns:
            The output, and the features of the layers that are not near.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features to keep")

    def with_features(self, x: Tensor, c: Tensor, features: Sequence[Tensor], **cond: Tensor) -> Tensor:
        """Evaluate the network with features of a control branch added to its own; see `Controlled`.

        Args:
            x: As in `forward`.
            c: As in `forward`.
            features: What is added, a tensor for each place where this network takes some.
            **cond: As in `forward`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no features of a control branch")

    def control_branch(self, condition: Control) -> ControlBranch:
        """A control branch for this network, to be trained; see `UNetControl`.

        Args:
            condition: The image that it sees.

        Raises:
            ParameterError: If there is none for such a network, or the image does not fit.
        """
        raise ParameterError("backbone", f"{type(self).__name__} has no control branch; use UNet")

    def _values(self, cond: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """All conditions of the network by name, the null one where a condition is missing.

        Raises:
            ParameterError: If there are conditions that the network was not built for, or a required one is missing.
        """
        names = [condition.name for condition in self.conditions]
        if unsupported := sorted(set(cond) - set(names)):
            kind = f"is conditioned on {' and '.join(names)}" if names else "is unconditional"
            raise ParameterError("backbone", f"{type(self).__name__} {kind}, but was passed {', '.join(unsupported)}.")
        values: dict[str, Tensor] = {}
        for condition in self.conditions:
            if (value := cond.get(condition.name)) is not None:
                condition.check_in_loop(value, len(x))
            elif condition.required:
                raise ParameterError(condition.name, f"must be {condition.words}, got none")
            values[condition.name] = condition.null(len(x), x) if value is None else value.to(x.device)
        return values

    @property
    def inputs(self) -> int:
        """Channels of the noisy sample and of what is joined to it."""
        return self.shape[0] + sum(condition.joined for condition in self.conditions)

    def _require_entries(self, added: Collection[str], joins: bool = False, context: nn.Module | None = None) -> None:
        """Raise a ParameterError for a condition that this network has no way to take.

        Args:
            added: Names of those that it adds to the noise embedding.
            joins: Whether it joins images.
            context: What it attends to; None for nothing.
        """
        entered = {*added, *getattr(context, "attended", ())}
        for condition in self.conditions:
            size = tuple(getattr(condition, "size", ()) if joins and condition.joined else ())
            allowed = f"images of the size of the samples, {self.shape[1:]}, to be joined to them"
            require(size in ((), self.shape[1:]), "conditions", condition, allowed)
            if condition.name not in entered and not (joins and condition.joined):
                problem = f"{type(self).__name__} has no way to take {condition!r}"
                raise ParameterError("conditions", f"{problem}; write a network of your own, or use UNet or DiT.")


def _any_size(condition: Condition) -> bool:
    """Whether this is a condition of images that does not say their size."""
    return bool(condition.joined) and getattr(condition, "size", None) == ()


def require_size(parameter: str, value: Any, most: int) -> None:
    """Raise a ParameterError for a size of a network that is not an integer from 1 to `most`."""
    require_whole(parameter, value)
    require(value <= most, parameter, value, f"at most {most}")
