"""Networks of diffusers that are conditioned on text, and the prompt as a condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.backbone.base import Backbone
from unidiff.condition.base import Condition
from unidiff.errors import ParameterError, require
from unidiff.tensors import described

__all__ = ["Prompt", "PromptedBackbone", "packed", "unpacked"]


@dataclass(frozen=True)
class Prompt(Condition):
    """A text, as all numbers that the text encoders of a pipeline make of it, (size,); `parse` makes them.

    Args:
        size: How many numbers.
        encode: Makes them of a text.
        empty: Those of no prompt, (size,).
        encode_negative: Makes them of a text that guidance leads away from; None for `encode`.
        name: Its keyword.
    """

    size: int
    encode: Callable[[str], Tensor] = field(compare=False, repr=False)
    empty: Tensor = field(compare=False, repr=False)
    encode_negative: Callable[[str], Tensor] | None = field(default=None, compare=False, repr=False)
    name: str = field(default="prompt", kw_only=True)
    _on: dict[Any, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def words(self) -> str:
        """See `Condition.words`."""
        return f"{self.size} numbers for each sample, which condition.parse('a text') makes"

    def null(self, count: int, like: Tensor) -> Tensor:
        """What the pipeline takes for no prompt."""
        key = like.device, like.dtype if like.is_floating_point() else self.empty.dtype
        if key not in self._on:  # copied once to each device
            self._on[key] = self.empty.to(*key)
        return self._on[key].expand(count, -1)

    def check(self, value: Tensor, count: int) -> Tensor:
        """See `Condition.check`: `count` rows of finite numbers."""
        fits = isinstance(value, Tensor) and value.shape == (count, self.size) and value.is_floating_point()
        if not fits:
            raise ParameterError(self.name, f"must be floats of shape {(count, self.size)}, got {described(value)}")
        require(bool(value.isfinite().all()), self.name, "values with NaN or infinity", "finite numbers")
        return value

    def parse(self, value: Any) -> Tensor:
        """The numbers of a text, (size,); see `Condition.parse`."""
        if not isinstance(value, str):
            raise ParameterError(self.name, f"must be a text, got {value!r}")
        return self.encode(value)

    def parse_negative(self, value: Any) -> Tensor:
        """The numbers of a text that guidance leads away from, (size,); see `Condition.parse_negative`."""
        if not isinstance(value, str) or self.encode_negative is None:
            return self.parse(value)
        return self.encode_negative(value)

    def several(self, value: Any) -> list[Any]:
        """The texts of a list, or the one text."""
        return list(value) if isinstance(value, (list, tuple)) and value else [value]


def packed(parts: Mapping[str, Tensor]) -> Tensor:
    """Tensors with one row each as one vector."""
    first = next(iter(parts.values()))
    return torch.cat([part[0].flatten().to(first) for part in parts.values()])


def unpacked(value: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The inverse of `packed`, (B, size), for parts of these shapes, each (B, *shape)."""
    rows = value.split([torch.Size(shape).numel() for shape in shapes.values()], dim=1)
    return {name: row.unflatten(1, shape) for (name, shape), row in zip(shapes.items(), rows)}


class PromptedBackbone(Backbone):
    """A network of diffusers that is conditioned on text as a backbone; the noise condition is its own timestep.

    Args:
        network: The model of diffusers.
        shape: Shape of one sample, (C, H, W).
        call: Its output for samples, timesteps and the parts of the prompt.
        parts: Shape of each part of the prompt, by name.
        prompt: The condition, whose numbers are all parts in this order.
        text: The arguments that a UNet and its control branches take of the parts; None for another network.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        call: Callable[..., Tensor],
        parts: Mapping[str, tuple[int, ...]],
        prompt: Condition,
        text: Callable[[dict[str, Tensor]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(shape, conditions=(prompt,))
        self.network = network
        self._call = call
        self._parts = dict(parts)
        self._text = text

    @property
    def takes_features(self) -> bool:
        """Whether it implements `with_features`."""
        return self._text is not None

    def texts(self, prompt: Tensor, x: Tensor) -> dict[str, Any]:
        """The arguments of a UNet, or of its control branch, of prompts (B, size), for samples x."""
        assert self._text is not None
        return self._text(unpacked(prompt.to(x.dtype), self._parts))

    def forward(self, x: Tensor, c: Tensor, **cond: Tensor) -> Tensor:
        """See `Backbone.forward`; the condition is `prompt`, (B, size)."""
        return self._output(x, c, cond)

    def with_features(self, x: Tensor, c: Tensor, features: Sequence[Tensor], **cond: Tensor) -> Tensor:
        """See `Backbone.with_features`: a feature for each of its skips, and one for its middle."""
        *down, middle = features
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self._output(x, c, cond, **added)

    def _output(self, x: Tensor, c: Tensor, cond: Mapping[str, Tensor], **added: Any) -> Tensor:
        parts = unpacked(self._values(cond, x)["prompt"].to(x.dtype), self._parts)
        output = self._call(self.network, x, c, parts, **added)
        return output[:, : x.shape[1]]  # some predict a variance, too, which their pipelines leave out
