"""The contracting path of the U-Net, and its copy as a control branch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from unidiff.backbone.axes import CONVOLUTIONS, POOLS, downsample, fold_patches, fold_time
from unidiff.backbone.context import Entered, Entry, context_of
from unidiff.backbone.control import ControlBranch
from unidiff.backbone.layers import NoiseEmbedding, apply_layer, zeroed
from unidiff.backbone.unet_layers import UNetLayers
from unidiff.condition.base import Condition
from unidiff.condition.image import Control
from unidiff.errors import ParameterError

__all__ = ["ContractingPath", "UNetControl"]


class ContractingPath(Entered):
    """The layers that `UNet` and `UNetControl` share: the embedding, the contracting path and the middle."""

    layers: UNetLayers
    temporal: nn.ModuleList

    def _build_contracting(self, layers: UNetLayers, inputs: int, conditions: Sequence[Condition]) -> list[int]:
        """Make them for so many channels of the joined input; the channels of each map with a skip connection."""
        self.layers, self.factorized, rank = layers, layers.factorized, layers.rank
        self.context = context_of(conditions, layers.features)
        if self.context is not None:
            layers.require_attention([*self.context.attended])
        crossed = self.context is not None
        self.embedding = NoiseEmbedding(layers.width, layers.features, conditions)
        self.stem = CONVOLUTIONS[rank](inputs * layers.patch**rank, layers.width, 3, padding=1)
        self.down, self.coarsen = nn.ModuleList(), nn.ModuleList()
        h, skips = layers.width, [layers.width]
        for level, (size, out) in enumerate(zip(layers.sizes, layers.channels)):
            if level > 0:
                self.coarsen.append(layers.resampling(h, downsample, POOLS[rank](2)))
                skips.append(h)
            stages = nn.ModuleList()
            for _ in range(layers.blocks):
                stages.append(layers.stage(h, out, size in layers.attention, crossed))
                skips.append(h := out)
            self.down.append(stages)
        self.middle = nn.ModuleList([layers.stage(h, h, layers.central, crossed), layers.stage(h, h, False, crossed)])
        return skips

    def _contracted(self, entry: Entry, count: int | None = None, added: Tensor | None = None) -> list[Tensor]:
        """The maps with a skip connection, or the first `count` of them, with something added behind the stem."""
        h, number = self.stem(fold_patches(entry.x, self.layers.patch)), 0
        maps = [h if added is None else h + added]
        for level, stages in enumerate(self.down):
            if level > 0 and (count is None or len(maps) < count):
                maps.append(apply_layer(self.coarsen[level - 1], maps[-1], entry.e))
            for stage in stages:  # type: ignore[attr-defined]
                if count is None or len(maps) < count:
                    maps.append(self._through(stage, number, maps[-1], entry))
                number += 1
        return maps

    def _middle(self, h: Tensor, entry: Entry) -> Tensor:
        """The map behind the middle."""
        before = self.layers.blocks * len(self.down)
        for number, stage in enumerate(self.middle, before):
            h = self._through(stage, number, h, entry)
        return h

    def _through(self, stage: nn.Module, number: int, h: Tensor, entry: Entry) -> Tensor:
        """A stage, and behind it the attention between frames of this number in a factorized network."""
        h = stage(h, entry.e, entry.context)
        if self.factorized:
            tokens = self.temporal[number](h.flatten(2).transpose(1, 2).unflatten(0, (entry.samples, -1)))
            h = tokens.flatten(0, 1).transpose(1, 2).unflatten(2, h.shape[2:])
        return h


class UNetControl(ContractingPath, ControlBranch):
    """A control branch of a `UNet`: a copy of its contracting path, which also sees an image (Zhang et al. 2023).

    Three convolutions map the image to features that are added behind the first convolution of the copy, and one
    convolution of kernel 1 maps each of its maps to a feature for the network. The last of the three and all of those
    are zero at first: so are the features, and the network is the one without a branch.

    Args:
        layers: The layers of the network.
        conditions: The conditions of the network.
        inputs: Channels of its joined input.
        condition: The image, whose sizes divide those of the samples; each of its pixels is repeated.
    """

    def __init__(self, layers: UNetLayers, conditions: tuple[Condition, ...], inputs: int, condition: Control) -> None:
        super().__init__()
        sizes, rank = layers.shape[1:], layers.rank
        if len(condition.size) != len(sizes) or any(whole % part for part, whole in zip(condition.size, sizes)):
            problem = f"must be images whose sizes divide those of the samples, {sizes}, got {condition.size}"
            raise ParameterError(condition.name, problem)
        self.conditions, self.condition = conditions, condition
        maps = self._build_contracting(layers, inputs, conditions)
        self.temporal = layers.temporal(expanding=False)
        convolution, width = CONVOLUTIONS[rank], layers.width
        self.image = nn.Sequential(
            convolution(condition.channels * layers.patch**rank, width, 3, padding=1),
            nn.SiLU(),
            convolution(width, width, 3, padding=1),
            nn.SiLU(),
            zeroed(convolution(width, width, 3, padding=1)),
        )
        self.zeros = nn.ModuleList(zeroed(convolution(size, size, 1)) for size in [*maps, maps[-1]])

    def forward(self, x: Tensor, c: Tensor, image: Tensor, **cond: Tensor) -> Sequence[Tensor]:
        """See `ControlBranch.forward`: a feature for each map with a skip connection, and one for the middle."""
        entry, image = self._enter(x, c, cond), image.to(x.dtype)
        for axis, whole in enumerate(self.layers.shape[1:], 2):
            image = image.repeat_interleave(whole // image.shape[axis], axis)
        image = fold_time(image) if self.factorized else image
        maps = self._contracted(entry, added=self.image(fold_patches(image, self.layers.patch)))
        return [zero(h) for zero, h in zip(self.zeros, [*maps, self._middle(maps[-1], entry)])]

    def weights_from(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `ControlBranch.weights_from`: the convolutions of the image are drawn, always the same."""
        generator = torch.Generator().manual_seed(0)
        weights: dict[str, Tensor] = {}
        for name, own in self.state_dict().items():
            if not name.startswith(("image.", "zeros.")):
                if name in start:
                    weights[name] = start[name].clone()
            elif name in ("image.0.weight", "image.2.weight"):
                deviation = math.sqrt(2 / math.prod(own.shape[1:]))
                weights[name] = torch.randn(own.shape, generator=generator) * deviation
            else:
                weights[name] = torch.zeros(own.shape)
        return weights
